// Returns what is wrong with the page's accessibility, a line each.
(() => {
  const found = new Set();
  const tell = (rule, node, why) => found.add(`${rule}: ${why} ${node ? node.outerHTML.slice(0, 140).replace(/\s+/g, " ") : ""}`);
  const all = selector => [...document.querySelectorAll(selector)];
  const shown = node => node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const name = node => node.getAttribute("aria-label") || all("label").find(l => l.control === node)?.textContent || node.textContent;

  if (!document.documentElement.lang) tell("html-has-lang", null, "no language");
  if (!document.title) tell("document-title", null, "no title");
  for (const [selector, rule] of [["main", "landmark-one-main"], ["h1", "page-has-heading-one"]]) {
    if (all(selector).length !== 1) tell(rule, null, `${all(selector).length} of ${selector}`);
  }
  if (/user-scalable\s*=\s*no|maximum-scale/.test(document.querySelector("meta[name=viewport]")?.content)) tell("meta-viewport", null, "no zoom");

  let level = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6").filter(shown)) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) tell("heading-order", heading, `h${next} after h${level}`);
    if (!heading.textContent.trim()) tell("empty-heading", heading, "no text");
    level = next;
  }

  const ids = all("[id]").map(n => n.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) tell("duplicate-id", null, id);
  for (const attribute of ["aria-labelledby", "aria-describedby", "aria-controls", "for"]) {
    for (const node of all(`[${attribute}]`)) {
      for (const id of node.getAttribute(attribute).split(/\s+/)) if (!document.getElementById(id)) tell("aria-valid-attr-value", node, `${attribute} of nothing`);
    }
  }
  for (const node of all("[role]")) if (!["img", "status", "search"].includes(node.role)) tell("aria-roles", node, "unusual role");
  for (const node of all("[aria-hidden=true]")) if (node.matches("a, button, input") || node.querySelector("a[href], button, input")) tell("aria-hidden-focus", node, "hidden, but takes the focus");
  for (const node of all("[tabindex]")) if (node.tabIndex > 0) tell("tabindex", node, "order of its own");
  for (const node of all("img")) if (!node.hasAttribute("alt")) tell("image-alt", node, "no alt");
  for (const node of all("svg[role=img]")) if (!node.getAttribute("aria-label")) tell("svg-img-alt", node, "no name");
  for (const node of all("a[href], button, input").filter(shown)) if (!name(node)?.trim()) tell("button-name, link-name, label", node, "no name");
  for (const table of all("table")) {
    if (!table.caption?.textContent) tell("table-caption", table, "no caption");
    for (const th of table.querySelectorAll("th")) if (!th.scope) tell("scope-attr-valid", th, "no scope");
    for (const part of table.querySelectorAll("tr, td, th")) if (!getComputedStyle(part).display.startsWith("table") && getComputedStyle(part).display !== "none") tell("table-semantics", part, "is drawn as no part of a table");
  }
  for (const list of all("ol, ul")) if ([...list.children].some(n => n.tagName !== "LI")) tell("list", list, "other children than li");
  for (const list of all("dl")) for (const group of list.children) if (!["DT", "DD", "DIV"].includes(group.tagName)) tell("definition-list", list, "other children");
  for (const node of all("button, input, summary").filter(shown)) {
    const box = (node.type === "radio" ? node.parentElement : node).getBoundingClientRect();
    if (box.width < 24 || box.height < 24) tell("target-size", node, `${Math.round(box.width)} × ${Math.round(box.height)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) tell("reflow", null, "scrolls sideways");

  // Words that are broken over lines, less long ones such as digests, which have to be, and parts of what has no space for
  // more than a line.
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = document.createRange();
  while (words.nextNode()) {
    const text = words.currentNode, node = text.parentElement;
    if (!shown(node) || node.closest(".quiet, .skip, noscript, pre, svg")) continue;
    const endless = [...text.data.matchAll(/\S{80,}/g)];
    for (const word of text.data.matchAll(/[\p{L}\p{N}]{2,20}/gu)) {
      if (endless.some(run => run.index <= word.index && word.index < run.index + run[0].length)) continue;
      if (/[\p{L}\p{N}]/u.test(text.data[word.index - 1] ?? "") || /[\p{L}\p{N}]/u.test(text.data[word.index + word[0].length] ?? "")) continue;
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1) tell("broken-word", node, word[0]);
    }
  }

  // Contrast, of colours as they are painted.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = node => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.push(rgba(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), rgba("Canvas"));
  };
  const luminance = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const contrast = (a, b) => {
    const [dark, bright] = [luminance(a), luminance(b)].sort((a, b) => a - b);
    return (bright + .05) / (dark + .05);
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !shown(node) || node.closest(".quiet, .skip, noscript")) continue;
    const style = getComputedStyle(node), size = parseFloat(style.fontSize);
    const ground = behind(node), ratio = contrast(over(rgba(node.namespaceURI.endsWith("svg") ? style.fill : style.color), ground), ground);
    const least = size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5;
    if (ratio < least) tell("color-contrast", node, `${ratio.toFixed(2)} instead of ${least}`);
  }
  for (const [selector, property] of [[".chart .line", "stroke"], [".key", "borderTopColor"], ["input[type=search]", "borderTopColor"], ["button:not(.toggle)", "borderTopColor"]]) {
    for (const node of all(selector).filter(shown)) {
      const colour = rgba(getComputedStyle(node)[property]), ground = behind(node.parentElement);
      if (colour[3] && contrast(over(colour, ground), ground) < 3) tell("non-text-contrast", node, contrast(over(colour, ground), ground).toFixed(2));
    }
  }
  return [...found];
})()
