import { auth } from "./auth.js";
import { Problem, request } from "./api.js";

// The files of a session: docs/files.md.

export interface Entry {
  /** As JSON has it: the percent sign, control characters and bytes that are not UTF-8 are percent-encoded. */
  name: string;
  kind: "file" | "directory" | "symlink" | "other";
  size?: number;
  mode?: number;
  modified?: string;
  link?: string;
  tag?: string;
}

/** Entries of a directory that are shown at most. */
const maxEntries = 5000;

/** Bytes of a file that are shown at most. */
const maxText = 512 << 10;
const maxImage = 16 << 20;

/** Bytes that are downloaded at most: the page holds them. */
export const maxDownload = 512 << 20;

/** The URL of a path, in which what JSON has percent-encoded stays so. */
function fileUrl(session: string, path: string, query = ""): string {
  const encoded = path.split("/").map((name) => encodeURIComponent(name).replaceAll("%25", "%"));
  return `/api/v1/sessions/${encodeURIComponent(session)}/files/${encoded.join("/")}${query}`;
}

/** Lists a directory, directories first. `more`: it has more entries than are shown. */
export async function listDirectory(session: string, path: string): Promise<{ entries: Entry[]; more: boolean }> {
  const entries: Entry[] = [];
  let after: string | undefined;
  do {
    const query = after === undefined ? "?list" : `?list&continue=${encodeURIComponent(after)}`;
    const answer = await request(fileUrl(session, path, query), { cache: "no-store" });
    const page = (await answer.json()) as { entries?: Entry[]; continue?: string };
    entries.push(...(page.entries ?? []));
    after = page.continue;
  } while (after !== undefined && entries.length < maxEntries);
  const order = (e: Entry) => (e.kind === "directory" ? 0 : 1);
  entries.sort((a, b) => order(a) - order(b) || a.name.localeCompare(b.name));
  return { entries, more: after !== undefined };
}

export async function statFile(session: string, path: string): Promise<Entry> {
  return (await (await request(fileUrl(session, path, "?stat"), { cache: "no-store" })).json()) as Entry;
}

export async function removeFile(session: string, path: string, recursive: boolean): Promise<void> {
  await request(fileUrl(session, path, recursive ? "?recursive" : ""), { method: "DELETE" });
}

/** What can be shown of a file. */
export type Content =
  | { kind: "text"; text: string; cut: boolean }
  | { kind: "image"; blob: Blob }
  | { kind: "none"; why: string };

/** The images that are shown, by how they begin. No SVG: it is a document, which may hold scripts. */
const images: [string, RegExp][] = [
  ["image/png", /^\x89PNG\r\n\x1a\n/], // oxlint-disable-line no-control-regex -- it is how one begins
  ["image/jpeg", /^\xff\xd8\xff/],
  ["image/gif", /^GIF8[79]a/],
  ["image/webp", /^RIFF[^]{4}WEBP/],
  ["image/avif", /^[^]{4}ftypavif/],
];

/**
 * Reads what can be shown of a file. Its type is told by its content, from the list above: whatever a session calls
 * its file, it is an image, or text in an element, and never a document.
 */
export async function readFile(session: string, path: string, size: number): Promise<Content> {
  if (size === 0) return { kind: "text", text: "", cut: false };
  const head = await readRange(session, path, Math.min(size, maxText));
  const start = String.fromCharCode(...head.subarray(0, 16));
  const type = images.find(([, begin]) => begin.test(start))?.[0];
  if (type) {
    if (size > maxImage) return { kind: "none", why: "The image is too large to be shown." };
    const all = size > head.length ? await readRange(session, path, size) : head;
    return { kind: "image", blob: new Blob([all], { type }) };
  }
  if (head.subarray(0, 8192).includes(0)) return { kind: "none", why: "The file is not text." };
  return { kind: "text", text: new TextDecoder().decode(head), cut: size > head.length };
}

async function readRange(session: string, path: string, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const answer = await request(fileUrl(session, path), { headers: { Range: `bytes=0-${length - 1}` }, cache: "no-store" });
  return new Uint8Array(await answer.arrayBuffer());
}

/** Saves a file, or a directory as an archive. The browser saves it whatever its type: it shows nothing of it. */
export async function download(session: string, path: string, directory: boolean): Promise<void> {
  const headers: Record<string, string> = directory ? { Accept: "application/x-tar" } : {};
  const answer = await request(fileUrl(session, path), { headers, cache: "no-store" });
  const blob = new Blob([await answer.blob()], { type: "application/octet-stream" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = (path.split("/").at(-1) || "files") + (directory ? ".tar" : "");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A file that is to be uploaded, with its path below the directory that it was dropped on. */
export interface Dropped {
  path: string;
  file: File;
}

/** Files that are uploaded at a time from one drop at most. */
const maxDropped = 2000;

/** The files that were dropped, those in directories included. To be called during the event. */
export async function droppedFiles(transfer: DataTransfer): Promise<Dropped[]> {
  const roots = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((e) => e !== null);
  const found: Dropped[] = [];
  const visit = async (entry: FileSystemEntry, path: string): Promise<void> => {
    if (entry.isFile) {
      if (found.length === maxDropped) throw new Error(`more than ${maxDropped} files: use troupe cp for these`);
      const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
      found.push({ path: path + entry.name, file });
      return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
      const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
      if (batch.length === 0) return;
      for (const child of batch) await visit(child, `${path}${entry.name}/`);
    }
  };
  for (const root of roots) await visit(root, "");
  return found;
}

/** The name of a file here, as the paths of this module have it. */
export function jsonName(name: string): string {
  return name.replaceAll("%", "%25");
}

/**
 * Uploads a file. It rejects with a Problem of status 412 if there is one and it may not be replaced. (XMLHttpRequest,
 * because fetch does not tell how far an upload is.)
 */
export function upload(session: string, path: string, file: File, replace: boolean, onProgress: (sent: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("PUT", fileUrl(session, path, "?parents"));
    const { token } = auth; // another may be given before the answer comes
    if (token) xhr.setRequestHeader("Authorization", `Bearer ${token}`);
    if (!replace) xhr.setRequestHeader("If-None-Match", "*");
    xhr.setRequestHeader("Content-Type", "application/octet-stream");
    xhr.upload.onprogress = (e) => onProgress(e.loaded);
    xhr.onload = () => {
      if (xhr.status < 300) return resolve();
      if (xhr.status === 401) auth.refused(token);
      let detail = `the server answered ${xhr.status}`;
      try {
        detail = (JSON.parse(xhr.responseText) as { detail?: string }).detail ?? detail;
      } catch {
        // It is not the server's own answer.
      }
      reject(new Problem(xhr.status, detail));
    };
    xhr.onerror = () => reject(new Error("the connection was lost"));
    xhr.send(file);
  });
}
