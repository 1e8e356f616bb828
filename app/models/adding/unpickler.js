// Interprets the instructions of a pickle without running anything: only tensors, dicts, lists, numbers and texts become
// values; every other class becomes its name.
(() => {
  "use strict";
  const SIZES = {
    float64: 8, int64: 8, float32: 4, int32: 4, float16: 2, bfloat16: 2, int16: 2, int8: 1, uint8: 1, bool: 1,
  };
  class Refused extends Error {}
  class Tensor {
    constructor(storage, offset, shape, stride, dtype) {
      Object.assign(this, {storage, offset, shape, stride, dtype: dtype || storage.dtype});
    }
  }
  class Other {
    constructor(name) { this.name = name; }
  }
  class Global {
    constructor(module, name) { this.name = `${module}.${name}`; this.last = name; }
  }
  const MARK = new Other("mark");
  const latin = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  const utf8 = (bytes) => new TextDecoder("utf-8").decode(bytes);
  const bytesOf = async (blob) => new Uint8Array(await blob.arrayBuffer());

  // Instructions of a pickle, up to its STOP. `storageOf` makes a storage from a persistent id.
  class Unpickler {
    constructor(bytes, start, storageOf) {
      this.bytes = bytes;
      this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.at = start;
      this.storageOf = storageOf;
    }
    take(count) {
      if (this.at + count > this.bytes.length) throw new RangeError("the pickle goes on behind the end");
      this.at += count;
      return this.bytes.subarray(this.at - count, this.at);
    }
    number(size) {
      const view = this.view, at = this.at;
      this.take(size);
      if (size === 1) return view.getUint8(at);
      if (size === 2) return view.getUint16(at, true);
      if (size === 4) return view.getUint32(at, true);
      return Number(view.getBigUint64(at, true));
    }
    line() {
      const end = this.bytes.indexOf(10, this.at);
      if (end < 0) throw new RangeError("the pickle goes on behind the end");
      const text = utf8(this.take(end - this.at));
      this.at += 1;
      return text;
    }
    long(count) {
      let value = 0n;
      const bytes = this.take(count);
      for (let i = count - 1; i >= 0; i--) value = value * 256n + BigInt(bytes[i]);
      if (count && bytes[count - 1] > 127) value -= 1n << BigInt(8 * count);
      return Number(value);
    }
    marked() {
      const items = [];
      for (let top = this.stack.pop(); top !== MARK; top = this.stack.pop()) {
        if (top === undefined) throw new Refused("a damaged file (its pickle has no mark); save it again");
        items.push(top);
      }
      return items.reverse();
    }
    pairs(target, items) {
      if (target instanceof Map) for (let i = 0; i + 1 < items.length; i += 2) target.set(items[i], items[i + 1]);
    }
    run() {
      const stack = (this.stack = []), memo = new Map();
      for (;;) {
        const code = String.fromCharCode(this.number(1));
        switch (code) {
          case ".": return stack.pop();
          case "\x80": this.number(1); break;
          case "\x95": this.take(8); break;
          case "(": stack.push(MARK); break;
          case "0": stack.pop(); break;
          case "1": this.marked(); break;
          case "2": stack.push(stack[stack.length - 1]); break;
          case "N": stack.push(null); break;
          case "\x88": stack.push(true); break;
          case "\x89": stack.push(false); break;
          case "J": stack.push(this.number(4) | 0); break;
          case "K": stack.push(this.number(1)); break;
          case "M": stack.push(this.number(2)); break;
          case "\x8a": stack.push(this.long(this.number(1))); break;
          case "\x8b": stack.push(this.long(this.number(4))); break;
          case "I": case "L": case "F": stack.push(parseFloat(this.line())); break;
          case "G": this.take(8); stack.push(this.view.getFloat64(this.at - 8)); break;
          case "X": stack.push(utf8(this.take(this.number(4)))); break;
          case "\x8c": stack.push(utf8(this.take(this.number(1)))); break;
          case "\x8d": stack.push(utf8(this.take(this.number(8)))); break;
          case "S": case "V": stack.push(this.line().replace(/^'|'$/g, "")); break;
          case "T": case "B": stack.push(latin(this.take(this.number(4)))); break;
          case "U": case "C": stack.push(latin(this.take(this.number(1)))); break;
          case "\x8e": case "\x96": stack.push(new Other("bytes")); this.take(this.number(8)); break;
          case ")": stack.push([]); break;
          case "]": stack.push([]); break;
          case "}": case "\x8f": stack.push(new Map()); break;
          case "t": case "l": stack.push(this.marked()); break;
          case "\x85": stack.push(stack.splice(-1)); break;
          case "\x86": stack.push(stack.splice(-2)); break;
          case "\x87": stack.push(stack.splice(-3)); break;
          case "a": { const item = stack.pop(), list = stack[stack.length - 1]; if (Array.isArray(list)) list.push(item); break; }
          case "e": { const items = this.marked(), list = stack[stack.length - 1]; if (Array.isArray(list)) for (const item of items) list.push(item); break; }
          case "d": { const items = this.marked(), map = new Map(); this.pairs(map, items); stack.push(map); break; }
          case "s": { const items = stack.splice(-2); this.pairs(stack[stack.length - 1], items); break; }
          case "u": { const items = this.marked(); this.pairs(stack[stack.length - 1], items); break; }
          case "\x90": this.marked(); break;
          case "\x91": stack.push(this.marked()); break;
          case "c": { const module = this.line(); stack.push(new Global(module, this.line())); break; }
          case "\x93": { const [module, name] = stack.splice(-2); stack.push(new Global(module, name)); break; }
          case "R": { const [callable, args] = stack.splice(-2); stack.push(made(callable, args)); break; }
          case "\x81": { const [cls, args] = stack.splice(-2); stack.push(made(cls, args)); break; }
          case "\x92": { const [cls, args] = stack.splice(-3); stack.push(made(cls, args)); break; }
          case "o": { const [cls, ...args] = this.marked(); stack.push(made(cls, args)); break; }
          case "i": { const module = this.line(), name = this.line(); stack.push(made(new Global(module, name), this.marked())); break; }
          case "b": stack.pop(); break;
          case "q": memo.set(this.number(1), stack[stack.length - 1]); break;
          case "r": memo.set(this.number(4), stack[stack.length - 1]); break;
          case "p": memo.set(Number(this.line()), stack[stack.length - 1]); break;
          case "\x94": memo.set(memo.size, stack[stack.length - 1]); break;
          case "h": stack.push(memo.get(this.number(1))); break;
          case "j": stack.push(memo.get(this.number(4))); break;
          case "g": stack.push(memo.get(Number(this.line()))); break;
          case "Q": stack.push(this.storageOf(stack.pop())); break;
          default: throw new Refused(`a damaged file (its pickle has the unknown instruction ${code.charCodeAt(0)}); save it again`);
        }
      }
    }
  }

  // The value that a call in a pickle stands for; calls other than those of tensors and dicts become names.
  function made(callable, args) {
    const name = callable instanceof Global ? callable.name : "object";
    if (name === "collections.OrderedDict" || name === "builtins.dict" || name === "collections.defaultdict") {
      const map = new Map();
      for (const pair of Array.isArray(args[0]) ? args[0] : []) if (Array.isArray(pair)) map.set(pair[0], pair[1]);
      return map;
    }
    if (name.startsWith("torch._utils._rebuild_parameter")) return args[0];
    if (name === "torch._utils._rebuild_tensor_v2" || name === "torch._utils._rebuild_tensor") {
      const [storage, offset, shape, stride] = args;
      if (storage && storage.dtype in SIZES) return new Tensor(storage, offset * SIZES[storage.dtype], shape, stride);
    }
    if (name === "torch._utils._rebuild_tensor_v3") {
      const [storage, offset, shape, stride, , , dtype] = args;
      if (dtype instanceof Global && dtype.last in SIZES) {
        return new Tensor(storage, offset * SIZES[dtype.last], shape, stride, dtype.last);
      }
    }
    return new Other(name);
  }

  globalThis.pncPickle = {Global, Other, Refused, SIZES, Tensor, Unpickler, bytesOf, latin, utf8};
})();
