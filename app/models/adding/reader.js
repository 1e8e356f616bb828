// Reads files of weights in the browser: safetensors, and both forms that torch.save writes.
//
// The page sends the outline (names, shapes and dtypes). The tensors' numbers leave the browser only when the visitor
// adds the model, as one safetensors file.
(() => {
  "use strict";
  const MOST_PICKLE = 256 * 2 ** 20;
  const STORAGES = {
    DoubleStorage: "float64", LongStorage: "int64", FloatStorage: "float32", IntStorage: "int32",
    HalfStorage: "float16", BFloat16Storage: "bfloat16", ShortStorage: "int16", CharStorage: "int8",
    ByteStorage: "uint8", BoolStorage: "bool", UntypedStorage: "uint8",
  };
  const SAFETENSORS = {
    F64: "float64", I64: "int64", F32: "float32", I32: "int32", F16: "float16", BF16: "bfloat16", I16: "int16",
    I8: "int8", U8: "uint8", BOOL: "bool",
  };
  const WRITTEN = {int64: "I64", int32: "I32", int16: "I16", int8: "I8", uint8: "U8", bool: "BOOL"};
  const OTHERS = [
    ["\x80", "a pickle that torch.save did not write; save model.state_dict() with torch.save"],
    ["\x1f\x8b", "a gzip archive; unpack it first"],
    ["\x89HDF", "an HDF5 file, perhaps of Keras; save a PyTorch network's state_dict() with torch.save"],
    ["version https://git-lfs", "a Git LFS pointer; run git lfs pull for the file itself"],
    ["<", "a web page; download the file itself"],
  ];
  const MAGIC = "\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";

  const {Other, Refused, SIZES, Tensor, Unpickler, bytesOf, latin, utf8} = globalThis.pncPickle;
  const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

  async function pickled(file, start, storageOf) {
    for (let size = 2 ** 20; ; size *= 8) {
      const bytes = await bytesOf(file.slice(start, start + size));
      const unpickler = new Unpickler(bytes, 0, storageOf);
      try {
        return [unpickler.run(), start + unpickler.at];
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        if (start + size >= file.size) throw new Refused("a damaged file, which ends too early; save or download it again");
        if (size > MOST_PICKLE) throw new Refused("a file with a pickle of over 256 MB; save model.state_dict() alone");
      }
    }
  }

  // The form of torch.save since 1.6: a zip archive with data.pkl and one entry a storage.
  async function readZip(file) {
    const entries = await directory(file);
    const names = new Map([...entries.keys()].map((name) => [name.slice(name.indexOf("/") + 1), name]));
    if (names.has("constants.pkl")) throw new Refused("a TorchScript program; save torch.jit.load(FILE).state_dict()");
    if (!names.has("data.pkl")) throw new Refused("a zip archive that torch.save did not write; save model.state_dict()");
    if (names.has("byteorder")) {
      const order = utf8(await bytesOf(await entry(file, entries.get(names.get("byteorder")))));
      if (order !== "little") throw new Refused("weights of a big-endian machine; load and save them on this one");
    }
    const storages = new Map();
    const storageOf = ([, type, key]) => {
      if (!storages.has(key)) {
        const at = entries.get(names.get(`data/${key}`));
        storages.set(key, {dtype: STORAGES[type.last], blob: () => entry(file, at)});
      }
      return storages.get(key);
    };
    const pickle = await entry(file, entries.get(names.get("data.pkl")));
    const [saved] = await pickled(pickle, 0, storageOf);
    return saved;
  }

  async function directory(file) {
    const start = Math.max(0, file.size - 66000), tail = await bytesOf(file.slice(start));
    const view = new DataView(tail.buffer);
    let end = tail.length - 22;
    while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
    if (end < 0) throw new Refused("a damaged zip archive, which has no directory; save or download it again");
    let offset = view.getUint32(end + 16, true), size = view.getUint32(end + 12, true);
    if (end >= 20 && view.getUint32(end - 20, true) === 0x07064b50) {
      const at = Number(view.getBigUint64(end - 12, true)), record = await bytesOf(file.slice(at, at + 56));
      const wide = new DataView(record.buffer);
      [size, offset] = [Number(wide.getBigUint64(40, true)), Number(wide.getBigUint64(48, true))];
    }
    const bytes = await bytesOf(file.slice(offset, offset + size)), list = new DataView(bytes.buffer), found = new Map();
    for (let at = 0; at + 46 <= bytes.length && list.getUint32(at, true) === 0x02014b50; ) {
      const [nameSize, extraSize, noteSize] = [28, 30, 32].map((place) => list.getUint16(at + place, true));
      const one = {
        method: list.getUint16(at + 10, true), packed: list.getUint32(at + 20, true),
        size: list.getUint32(at + 24, true), at: list.getUint32(at + 42, true),
      };
      const name = utf8(bytes.subarray(at + 46, at + 46 + nameSize));
      for (let extra = at + 46 + nameSize, last = extra + extraSize; extra + 4 <= last; ) {
        const [kind, length] = [list.getUint16(extra, true), list.getUint16(extra + 2, true)];
        let place = extra + 4;
        for (const field of kind === 1 ? ["size", "packed", "at"] : []) {
          if (one[field] === 0xffffffff && place + 8 <= extra + 4 + length) {
            one[field] = Number(list.getBigUint64(place, true));
            place += 8;
          }
        }
        extra += 4 + length;
      }
      found.set(name, one);
      at += 46 + nameSize + extraSize + noteSize;
    }
    return found;
  }

  async function entry(file, one) {
    if (!one) throw new Refused("a damaged file, which lacks a storage; save or download it again");
    const head = new DataView(await file.slice(one.at, one.at + 30).arrayBuffer());
    const start = one.at + 30 + head.getUint16(26, true) + head.getUint16(28, true);
    const blob = file.slice(start, start + one.packed);
    if (one.method === 0) return blob;
    if (one.method !== 8) throw new Refused("a zip archive of another compression; save model.state_dict() again");
    return new Response(blob.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
  }

  // The form of torch.save before 1.6: pickles, and behind them the storages in the order of the last pickle's keys.
  async function readLegacy(file) {
    const storages = new Map();
    const storageOf = ([, type, key, , , part]) => {
      const name = Array.isArray(part) ? `${key}/${part[0]}` : key;
      if (!storages.has(name)) storages.set(name, {dtype: STORAGES[type.last], key, first: Array.isArray(part) ? part[1] : 0});
      return storages.get(name);
    };
    let at = 0, saved, keys;
    for (let i = 0; i < 3; i++) [, at] = await pickled(file, at, storageOf);
    [saved, at] = await pickled(file, at, storageOf);
    [keys, at] = await pickled(file, at, storageOf);
    for (const key of keys) {
      const own = [...storages.values()].filter((storage) => storage.key === key);
      const count = Number(new DataView(await file.slice(at, at + 8).arrayBuffer()).getBigUint64(0, true));
      const size = SIZES[own.length ? own[0].dtype : undefined] || 0;
      const begin = at + 8;
      for (const storage of own) storage.blob = async () => file.slice(begin + storage.first * size, begin + count * size);
      at = begin + count * size;
    }
    if (at > file.size) throw new Refused("a damaged file, which ends too early; save or download it again");
    return saved;
  }

  async function readSafetensors(file, head) {
    const size = Number(new DataView(head.buffer).getBigUint64(0, true));
    if (size > 100 * 2 ** 20 || 8 + size > file.size) throw new Refused("a damaged safetensors file; save or download it again");
    let header;
    try {
      header = JSON.parse(utf8(await bytesOf(file.slice(8, 8 + size))));
    } catch {
      throw new Refused("a damaged safetensors file, whose header is not JSON; save or download it again");
    }
    const saved = new Map();
    for (const [name, one] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      const dtype = SAFETENSORS[one.dtype], [begin, end] = one.data_offsets;
      if (8 + size + end > file.size) throw new Refused("a damaged file, which ends too early; save or download it again");
      const blob = async () => file.slice(8 + size + begin, 8 + size + end);
      saved.set(name, dtype ? new Tensor({dtype, blob}, 0, one.shape, rows(one.shape)) : new Other(one.dtype));
    }
    return saved;
  }

  async function read(file) {
    const head = await bytesOf(file.slice(0, 512)), text = latin(head);
    if (text.startsWith("PK\x03\x04")) return ["zip", await readZip(file)];
    if (text.startsWith(MAGIC)) return ["legacy", await readLegacy(file)];
    if (head.length > 8 && head[8] === 0x7b) return ["safetensors", await readSafetensors(file, head)];
    if (!head.length) throw new Refused("an empty file; save or download it again");
    if (text.slice(257, 262) === "ustar") throw new Refused("a tar archive; unpack it first");
    const known = OTHERS.find(([start]) => text.startsWith(start));
    throw new Refused(known ? known[1] : `a file that begins with ${JSON.stringify(text.slice(0, 8))}; save model.state_dict() with torch.save`);
  }

  // A value of the file as the service reads it; `keys` are those under which scripts keep a network's tensors.
  function outlined(value, keys, tensors, depth) {
    if (value instanceof Tensor) return {tensor: [tensors.push(value) - 1, value.dtype, value.shape]};
    if (typeof value === "string") return {text: value.slice(0, 100)};
    if (!(value instanceof Map)) {
      return {other: value instanceof Other ? value.name : Array.isArray(value) ? "list" : value === null ? "NoneType" : typeof value};
    }
    const pairs = [];
    for (const [key, inner] of value) {
      if (typeof key !== "string") continue;
      const skipped = inner instanceof Map && (!keys.has(key) || depth > 6);
      pairs.push([key, skipped ? {other: "dict"} : outlined(inner, keys, tensors, depth + 1)]);
    }
    return {map: pairs};
  }

  // Strides of a tensor whose numbers lie row by row.
  function rows(shape) {
    const stride = new Array(shape.length);
    for (let axis = shape.length - 1, step = 1; axis >= 0; step *= Math.max(1, shape[axis--])) stride[axis] = step;
    return stride;
  }

  // The bytes of a tensor as safetensors has them: row by row, fractions as float32.
  async function contents(tensor) {
    const count = product(tensor.shape), size = SIZES[tensor.dtype], blob = await tensor.storage.blob();
    const plain = rows(tensor.shape);
    const inRows = count < 2 || tensor.shape.every((side, axis) => side === 1 || tensor.stride[axis] === plain[axis]);
    if (inRows && (tensor.dtype === "float32" || tensor.dtype in WRITTEN)) {
      return blob.slice(tensor.offset, tensor.offset + count * size);
    }
    const bytes = await bytesOf(blob), view = new DataView(bytes.buffer);
    const places = function* () {
      const index = new Array(tensor.shape.length).fill(0);
      for (let n = 0; n < count; n++) {
        yield tensor.offset + size * index.reduce((sum, i, axis) => sum + i * tensor.stride[axis], 0);
        for (let axis = index.length - 1; axis >= 0 && ++index[axis] === tensor.shape[axis]; axis--) index[axis] = 0;
      }
    };
    if (tensor.dtype in WRITTEN) {
      const out = new Uint8Array(count * size);
      let n = 0;
      for (const place of places()) out.set(bytes.subarray(place, place + size), size * n++);
      return new Blob([out]);
    }
    const out = new Float32Array(count);
    let n = 0;
    for (const place of places()) out[n++] = fraction(view, place, tensor.dtype);
    return new Blob([out]);
  }

  function fraction(view, place, dtype) {
    if (dtype === "float32") return view.getFloat32(place, true);
    if (dtype === "float64") return view.getFloat64(place, true);
    const bits = view.getUint16(place, true);
    if (dtype === "bfloat16") {
      const wide = new DataView(new ArrayBuffer(4));
      wide.setUint32(0, bits * 65536);
      return wide.getFloat32(0);
    }
    const [sign, exponent, rest] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return rest ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
  }

  // A safetensors file from a plan: pairs of a tensor's index (null: a counter of zero) and its new name.
  async function packed(plan, tensors, name) {
    const items = plan.map(([index, title]) => {
      const tensor = index === null ? null : tensors[index];
      const dtype = tensor === null ? "int64" : tensor.dtype, written = WRITTEN[dtype] || "F32";
      const size = written === "F32" ? 4 : SIZES[dtype], shape = tensor === null ? [] : tensor.shape;
      return {title, tensor, written, shape, align: size, bytes: size * product(shape)};
    });
    items.sort((a, b) => b.align - a.align);
    const header = {}, parts = [];
    let at = 0;
    for (const item of items) {
      header[item.title] = {dtype: item.written, shape: item.shape, data_offsets: [at, at + item.bytes]};
      at += item.bytes;
      parts.push(item.tensor === null ? new Uint8Array(8) : await contents(item.tensor));
    }
    const text = new TextEncoder().encode(JSON.stringify(header)), padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(32);
    padded.set(text);
    const length = new DataView(new ArrayBuffer(8));
    length.setBigUint64(0, BigInt(padded.length), true);
    return new File([length.buffer, padded, ...parts], name);
  }

  globalThis.pncReader = {Refused, outlined, packed, read};
})();
