// xterm.js styles itself with <style> elements and style attributes (DomRenderer.ts, DomRendererRowFactory.ts and Viewport.ts
// of version 6.0.0), which a Content-Security-Policy without 'unsafe-inline' refuses:
// https://github.com/xtermjs/xterm.js/issues/4445. Both have twins that a policy trusts, because only scripts reach them:
// constructed style sheets, and the properties of `element.style`. What follows makes elements that use those.
// (Its option documentOverride does not reach the row factory, nor the Viewport.)

/** Has the page make <style> and <span> elements that its policy accepts. */
export function makeStylesStrict(): void {
  document.createElement = ((tag: string, options?: ElementCreationOptions) => {
    if (tag === "style") return styleElement();
    const element = Document.prototype.createElement.call(document, tag, options);
    if (tag === "span") element.setAttribute = setAttribute;
    return element;
  }) as typeof document.createElement;
}

function setAttribute(this: HTMLElement, name: string, value: string): void {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/** An element that stands for a <style>: its text becomes a constructed sheet of the page, until it is removed. */
function styleElement(): HTMLElement {
  const element = Document.prototype.createElement.call(document, "template");
  const sheet = new CSSStyleSheet();
  let text = "";
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", {
    get: () => text,
    set: (css: string) => {
      text = css;
      sheet.replaceSync(css);
    },
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}
