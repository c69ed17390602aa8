// Compares terminals that saw all of a program's output with ones that were given a drawing somewhere in it. Reads
// from its input, a line each:
//   {"cols": 80, "rows": 24}         a new comparison
//   {"output": BASE64}
//   {"resize": [100, 30]}
//   {"drawing": BASE64, "text": [..], "lives": 3}   a terminal is given this here, and then the output until the 3rd
//                                                   drawing behind it; text is what the rows should say
//   {"viewer": [..]}                 another terminal is given these outputs and sizes, instead of all
//   {"end": true}
// and answers each end with a line: the differences, of which there should be none.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../gateway/console/web/package.json", import.meta.url));
const { Terminal } = require("@xterm/headless");
const { UnicodeGraphemesAddon } = require("@xterm/addon-unicode-graphemes");

const most = 5; // differences that are told

function terminal(cols, rows) {
  // Lines that have scrolled away are no part of a drawing.
  const t = new Terminal({ cols, rows, scrollback: 0, allowProposedApi: true, logLevel: "off" });
  t.loadAddon(new UnicodeGraphemesAddon());
  t.onTitleChange((title) => (t.lastTitle = title));
  return t;
}

/**
 * Writes bytes, but keeps a character that is not complete for the next time: of one whose second byte is 0x80,
 * xterm.js 6.0.0 loses the third if it comes separately (Utf8ToUtf32 in TextDecoder.ts).
 */
function feed(t, bytes) {
  bytes = Buffer.concat([t.kept ?? Buffer.alloc(0), bytes]);
  let end = bytes.length;
  for (let i = 1; i <= 3 && i <= bytes.length; i++) {
    const b = bytes[bytes.length - i];
    if (b < 0x80) break;
    if (b >= 0xc0) {
      if (i < (b >= 0xf8 ? 1 : b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2)) end -= i;
      break;
    }
  }
  t.kept = bytes.subarray(end);
  t._core.writeSync(new Uint8Array(bytes.subarray(0, end)));
}

/** How a blank looks depends on less than how a character does. */
function cell(line, x) {
  const c = line._line.loadCell(x, t0.buffer.active.getNullCell());
  const chars = c.getChars();
  const flags = c.isBold() + "," + c.isDim() + "," + c.isItalic() + "," + c.isBlink() + "," + c.isInvisible();
  const underlined = c.fg >>> 28 & 1; // isUnderline is true of links too
  const seen = underlined + "," + c.isInverse() + "," + c.isStrikethrough() + "," + c.isOverline();
  const blank = chars === "" || chars === " ";
  const line2 = underlined ? `${c.extended.underlineStyle},${lineColor(c)}` : "";
  const link = c.extended.urlId ? t0.linkOf(c.extended.urlId) : "";
  // Inserting into the middle of a wide character leaves its second half alone, which shows nothing.
  const alone = c.getWidth() === 0 && !(x > 0 && line._line.getWidth(x - 1) === 2);
  if (c.getWidth() === 0 && !alone) return "half";
  const shown = seen !== "0,0,0,0";
  return [
    blank ? " " : chars, alone ? 1 : c.getWidth(), shown || !blank ? color(c.fg) : "", color(c.bg), seen, blank ? "" : flags, blank ? "" : line2, blank ? "" : link,
  ].join("|");
}

let t0; // whose links are being looked at

/** The cells of a row as text. */
function row({ terminal, b, y, cols }) {
  t0 = terminal;
  const line = b.getLine(y);
  const cells = [];
  for (let x = 0; x < cols; x++) cells.push(cell(line, x));
  // A line may still be said to continue one that is no longer above it.
  const above = y > 0 && b.getLine(y - 1)._line;
  const wrapped = line.isWrapped && above && (above.getString(cols - 1).trim() !== "" || above.getWidth(cols - 1) === 0);
  return (wrapped ? "wrapped\t" : "\t") + cells.join("\t");
}

/** Whether rows are so much the same that they need not be looked at closely. */
function sameRow(a, b) {
  if (a.cols !== b.cols || a.line.isWrapped !== b.line.isWrapped) return false;
  for (let i = 0; i < a.cols * 3; i++) if (a.line._data[i] !== b.line._data[i]) return false;
  return [a, b].every(({ line }) => !Object.keys(line._combined).length && !Object.keys(line._extendedAttrs).length);
}

function page(terminal, b, out, name, cols, rows) {
  const length = b._buffer.lines.length;
  out[`${name} rows`] = length;
  for (let y = 0; y < length; y++) out[`${name} row ${y}`] = { terminal, b, y, cols, line: b.getLine(y)._line };
  const i = b._buffer;
  out[`${name} margins`] = `${i.scrollTop},${i.scrollBottom}`;
  if (length) {
    out[`${name} tabs`] = Object.keys(i.tabs).filter((x) => i.tabs[x] && x > 0 && x < cols).join(" ");
    out[`${name} saved`] = `${Math.min(i.savedX, cols - 1)},${Math.min(Math.max(i.savedY - i.ybase, 0), rows - 1)} ${pen(i.savedCurAttrData)}`;
  }
}

// -1 is the default after SGR 59.
const lineColor = (a) => (a.extended.underlineColor & 0x3ffffff) === 0x3ffffff ? 0 : a.extended.underlineColor & 0x3ffffff;

// Of a palette's color, only 8 bits count.
const color = (c) => c & ((c & 0x3000000) === 0x3000000 ? 0x3ffffff : 0x30000ff);

const pen = (a) => `${a.fg >>> 26} ${color(a.fg)} ${(a.bg >>> 26) & ~12} ${color(a.bg)}`; // extended or not is said below

function state(t) {
  t0 = t;
  const core = t._core;
  t.linkOf = (id) => core._oscLinkService.getLinkData(id)?.uri;
  const out = {};
  page(t, t.buffer.normal, out, "normal", t.cols, t.rows);
  page(t, t.buffer.alternate, out, "alternate", t.cols, t.rows);
  const b = core.buffer, handler = core._inputHandler, dec = core.coreService.decPrivateModes;
  out.active = t.buffer.active.type;
  out.cursor = `${b.x},${b.y}`;
  out.modes = JSON.stringify({ ...dec, ...core.coreService.modes, hidden: core.coreService.isCursorHidden,
    mouse: core.coreMouseService.activeProtocol, encoding: core.coreMouseService.activeEncoding,
    newline: t.options.convertEol, blink: t.options.cursorBlink });
  const attr = handler._curAttrData;
  out.pen = pen(attr) + (attr.isUnderline() ? ` ${attr.extended.underlineStyle}` : "") + ` ${lineColor(attr)} ${attr.extended.urlId ? t.linkOf(attr.extended.urlId) : ""}`;
  // DECRC restores more in xterm than in xterm.js: which set is in use, and all four.
  const sets = core._charsetService;
  out.charsets = JSON.stringify([sets.charset?.q, sets.charset?.["#"], [0, 1, 2, 3].map((g) => sets._charsets[g]?.q)]);
  out.title = t.lastTitle ?? "";
  const p = handler._parser;
  // Which of the states within a sequence, and what it has read, shows in what follows.
  out.parser = `${p.currentState} join ${p.precedingJoinState & 7} ${(p.precedingJoinState >> 3) & 15}`;
  return out;
}

let all, followers, differences, resized;

function compare(want, got, where) {
  for (const key of new Set([...Object.keys(want), ...Object.keys(got)])) {
    let [a, b] = [want[key], got[key]];
    if (a?.line && b?.line) {
      if (sameRow(a, b)) continue;
      [a, b] = [row(a), row(b)];
    }
    if (a === b) continue;
    differences++;
    if (differences > most) return;
    [a, b] = [String(a), String(b)];
    if (key === "modes") [a, b] = [a, b].map((text, i) => text.split(",").filter((mode) => ![b, a][i].includes(mode)).join(","));
    if (key.includes(" row ")) {
      const [c, d] = [a.split("\t"), b.split("\t")];
      const cellsA = [], cellsB = [];
      for (let i = 0; i < Math.max(c.length, d.length); i++) if (c[i] !== d[i]) { cellsA.push(`${i - 1}:${c[i]}`); cellsB.push(`${i - 1}:${d[i]}`); }
      [a, b] = [cellsA.slice(0, 6).join(" "), cellsB.slice(0, 6).join(" ")];
    }
    report.push(`${where}: ${key}: is ${JSON.stringify(b)}, should be ${JSON.stringify(a)}`);
  }
}

let report, offset;

for await (const text of createInterface({ input: process.stdin })) {
  const step = JSON.parse(text);
  if (step.cols) {
    [all, followers, differences, report, offset, resized] = [terminal(step.cols, step.rows), [], 0, [], 0, false];
  } else if (step.output !== undefined) {
    const bytes = Buffer.from(step.output, "base64");
    offset += bytes.length;
    for (const t of [all, ...followers.map((f) => f.terminal)]) feed(t, bytes);
  } else if (step.resize) {
    for (const t of [all, ...followers.map((f) => f.terminal)]) t.resize(...step.resize);
    // What was drawn is wrapped anew as what was printed is.
    for (const f of followers) compare(state(all), state(f.terminal), `byte ${offset}, resized, drawn at ${f.at}`);
    for (const f of followers) f.terminal.dispose();
    followers = [];
    resized = true;
  } else if (step.drawing !== undefined) {
    const want = state(all);
    for (const f of followers) {
      f.lives--;
      compare(want, state(f.terminal), `byte ${offset}, drawn at ${f.at}`);
    }
    for (const f of followers) if (f.lives <= 0 || differences) f.terminal.dispose();
    followers = differences ? [] : followers.filter((f) => f.lives > 0);
    const t = terminal(all.cols, all.rows);
    // It showed something else before.
    t._core.writeSync("\x1b[31;44mx\x1b[5;7r\x1b[?6;1000;1006;2004h\x1b(0\x0e\x1b[4h\x1b[?7l\x1b[?1049hyyy\x1b[2;3Hz\x1b]0;other");
    feed(t, Buffer.from(step.drawing, "base64"));
    if (resized) {
      // Which lines are shown then depends on those that have scrolled away. The comparison goes on with the drawing.
      const got = state(t);
      for (const key of Object.keys({ ...want, ...got })) if (/ row|saved|cursor/.test(key)) delete want[key], delete got[key];
      compare(want, got, `byte ${offset}, resized`);
      all.dispose();
      all = terminal(t.cols, t.rows);
      feed(all, Buffer.from(step.drawing, "base64"));
      resized = false;
    } else {
      compare(want, state(t), `byte ${offset}`);
    }
    const b = all.buffer.active;
    step.text.forEach((line, y) => {
      const should = b.getLine(y).translateToString(true, 0, all.cols).trimEnd();
      if (line.trimEnd() !== should && differences++ < most) report.push(`byte ${offset}: text of row ${y} is ${JSON.stringify(line)}, should be ${JSON.stringify(should)}`);
    });
    if (step.lives > 0 && !differences) followers.push({ terminal: t, at: offset, lives: step.lives });
  } else if (step.viewer) {
    const t = terminal(80, 24);
    for (const s of step.viewer) {
      if (s.resize) t.resize(...s.resize);
      else feed(t, Buffer.from(s.output, "base64"));
    }
    compare(state(all), state(t), "viewer");
  } else {
    if (!differences) for (const f of followers) compare(state(all), state(f.terminal), `end, drawn at ${f.at}`);
    console.log(JSON.stringify({ differences, report }));
  }
}
