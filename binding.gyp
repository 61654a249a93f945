{
  "targets": [
    {
      "target_name": "rlsd",
      "sources": [
        "<!@(node -p \"const s = require('./csrc/sources.json'); [...s.napi, ...s.cpu, ...s.model].join(' ')\")"
      ],
      "include_dirs": ["csrc/include", "csrc", "<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_VERSION=8",
        "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS",
        "NODE_ADDON_API_DISABLE_DEPRECATED",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        "NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED"
      ],
      "variables": {
        "flags": [
          "-O3", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden",
          "-fvisibility-inlines-hidden", "-Wall", "-Wextra", "-Wno-missing-field-initializers"
        ]
      },
      "cflags_cc": ["-std=c++17", "<@(flags)"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      "conditions": [
        ["OS=='linux'", {
          "ldflags": ["-Wl,-Bsymbolic-functions", "-Wl,--version-script=../csrc/napi/exports.map"]
        }],
        ["OS=='mac'", {
          "xcode_settings": {"CLANG_CXX_LANGUAGE_STANDARD": "c++17", "OTHER_CPLUSPLUSFLAGS": ["<@(flags)"]}
        }]
      ],
      "libraries": ["-ldl", "-lpthread"]
    }
  ]
}
