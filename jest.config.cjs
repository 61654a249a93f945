module.exports = {
  testEnvironment: "node",
  maxWorkers: 2,
  // A test's global object answers through a hook, a microsecond a time: too slow for numbers' loops.
  sandboxInjectedGlobals: [
    ...["Array", "Float32Array", "Float64Array", "Int32Array", "Map", "Number", "Object", "Set", "Uint16Array"],
    ...["Infinity", "Math"],
  ],
  testTimeout: 240_000,
  globalSetup: "<rootDir>/test/support/temporary.cjs",
  globalTeardown: "<rootDir>/test/support/remove-temporary.cjs",
  setupFilesAfterEnv: ["<rootDir>/test/support/equality.ts"],
  testMatch: ["<rootDir>/test/**/*.test.ts"],
  transform: {
    // The Parquet library is published as ES modules only, which this jest cannot load as they are.
    "^.+\\.ts$|[/\\\\]node_modules[/\\\\](hyparquet|hysnappy|fzstd)[/\\\\].+\\.js$": [
      "@swc/jest",
      { jsc: { parser: { syntax: "typescript" }, target: "es2023" } },
    ],
  },
  transformIgnorePatterns: ["/node_modules/(?!(hyparquet|hysnappy|fzstd)/)"],
  moduleNameMapper: { "^(\\.{1,2}/.*)\\.js$": "$1" },
};
