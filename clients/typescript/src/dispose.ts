// Browsers without explicit resource management lack the symbol; compilers that translate `await using` use it.
if (!Symbol.asyncDispose) {
  Object.defineProperty(Symbol, "asyncDispose", { value: Symbol("Symbol.asyncDispose") });
}

export {};
