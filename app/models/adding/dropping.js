// The place to drop files on the page that adds a model: what is dropped is read here, and its outline is sent.
(() => {
  "use strict";
  const {Refused, outlined, packed, read} = globalThis.pncReader;
  const MOST_TEXT = 4 * 2 ** 20;
  let tensors = [], turn = 0;
  const place = () => document.querySelector(".dropzone");
  const uploader = (name) => getElement(Number(place().dataset[name])).$refs.qRef;

  const refuse = (name, text) => emitEvent("weights_refused", {name, text});

  async function take(files) {
    const own = ++turn, texts = {}, isText = (file) => /\.(json|txt)$/i.test(file.name);
    for (const file of files.filter(isText)) {
      if (file.size > MOST_TEXT) return refuse(file.name, "expected a text of at most 4 MB, got a larger one");
      try {
        const text = new TextDecoder("utf-8", {fatal: true}).decode(await file.arrayBuffer());
        texts[/\.json$/i.test(file.name) ? "json" : "txt"] = [file.name, text];
      } catch {
        return refuse(file.name, "expected text in UTF-8, got other bytes; save the file as UTF-8");
      }
    }
    const weights = files.filter((file) => !isText(file));
    if (weights.length > 1) return refuse(weights[1].name, "expected one file of weights, got several; drop them one after another");
    if (!weights.length) return files.length ? send("outline", described(null, texts, 0)) : undefined;
    const [file] = weights;
    tensors = [];
    emitEvent("weights_begun", {name: file.name, size: file.size});
    try {
      const [kind, saved] = await read(file);
      const found = [], keys = new Set(JSON.parse(place().dataset.keys));
      const outline = {name: file.name, kind, saved: outlined(saved, keys, found, 0)};
      if (own !== turn) return;
      tensors = found;
      send("outline", described(outline, texts, file.size));
    } catch (error) {
      if (own !== turn) return;
      const text = error instanceof Refused ? error.message : `a file that cannot be read (${error.message}); save model.state_dict() with torch.save`;
      refuse(file.name, `expected weights, got ${text}`);
    }
  }

  const described = (outline, texts, size) => new File([JSON.stringify({outline, texts, size})], "outline.json");

  function send(name, file) {
    const one = uploader(name);
    one.reset();
    one.addFiles([file]);
    return one;
  }

  async function add(plan, name) {
    try {
      const one = send("weights", await packed(plan, tensors, name));
      const bar = document.querySelector(".sending progress");
      const timer = setInterval(() => {
        if (bar && one.uploadSize) bar.value = one.uploadedSize / one.uploadSize;
        if (!one.isUploading) clearInterval(timer);
      }, 200);
    } catch (error) {
      refuse(name, `expected the file as it was dropped, got an error (${error.message}); drop it again`);
    }
  }

  document.addEventListener("change", (event) => {
    if (!event.target.matches(".dropzone input")) return;
    take([...event.target.files]);
    event.target.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      const zone = event.target.closest && event.target.closest(".dropzone");
      if (zone) zone.classList.toggle("over", kind === "dragover");
      if (zone || kind !== "dragleave") event.preventDefault();  // a file dropped beside it must not replace the page
      if (zone && kind === "drop") take([...event.dataTransfer.files]);
    });
  }
  globalThis.pncDrop = {add};
})();
