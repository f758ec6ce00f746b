"""`/docs`: one page that reads `/openapi.json` and lets people try the model. It loads nothing from elsewhere."""

from __future__ import annotations

HTML = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:">
<link rel="icon" href="data:,"><title>serinus-runtime</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
details { border: 1px solid #8886; border-radius: 8px; margin: .6rem 0; padding: .4rem .8rem }
summary { cursor: pointer } code, pre, textarea { font: 14px/1.4 ui-monospace, monospace }
textarea { width: 100%; box-sizing: border-box; min-height: 9rem } pre { overflow: auto; max-height: 24rem }
button { font: inherit; padding: .2rem 1rem } .error { color: #c33 }
</style></head><body><h1 id="title">serinus-runtime</h1><p id="about"></p>
<p><a href="openapi.json">openapi.json</a></p><main id="paths"></main>
<script>
"use strict";
const make = (tag, text) => { const e = document.createElement(tag); if (text) e.textContent = text; return e; };
const ask = async (method, path, body, out) => {
  out.textContent = "...";
  const began = performance.now();
  try {
    const r = await fetch("." + path, {method, body, headers: body ? {"content-type": "application/json"} : {}});
    let text = await r.text();
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch (e) {}
    out.textContent = r.status + "  " + (performance.now() - began).toFixed(1) + " ms\\n" + text;
  } catch (e) { out.textContent = String(e); }
};
const show = (path, method, op, open) => {
  const box = make("details"), head = make("summary"), out = make("pre"), go = make("button", "Send");
  head.append(make("code", method.toUpperCase() + " " + path), " " + (op.summary || ""));
  box.append(head);
  box.open = open;
  let area = null;
  const content = op.requestBody && op.requestBody.content["application/json"];
  if (content) {
    area = make("textarea");
    area.setAttribute("aria-label", "body");
    area.value = content.example ? JSON.stringify(content.example, null, 2) : "";
    box.append(area);
  }
  go.onclick = () => ask(method.toUpperCase(), path, area ? area.value : undefined, out);
  box.append(go, out);
  if (content) {
    const schema = make("details");
    schema.append(make("summary", "Schema"), make("pre", JSON.stringify(content.schema, null, 2)));
    box.append(schema);
  }
  return box;
};
fetch("./openapi.json").then(async r => {
  const doc = await r.json();
  if (!r.ok) throw new Error(doc.error);
  document.title = doc.info.title;
  document.getElementById("title").textContent = doc.info.title + " " + doc.info.version;
  document.getElementById("about").textContent = doc.info.description;
  let first = true;
  for (const [path, item] of Object.entries(doc.paths))
    for (const [method, op] of Object.entries(item)) {
      document.getElementById("paths").append(show(path, method, op, first));
      first = false;
    }
}).catch(e => { const p = make("p", String(e)); p.className = "error"; document.body.append(p); });
</script></body></html>
"""
