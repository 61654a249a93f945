// See temporary.cjs.
module.exports = () => globalThis.removeTemporary();
