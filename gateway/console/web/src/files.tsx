import { useEffect, useRef, useState } from "preact/hooks";
import { Problem } from "./api.js";
import { type Content, download, type Dropped, droppedFiles, type Entry, jsonName, listDirectory, maxDownload, readFile, removeFile, statFile, upload } from "./filesapi.js";
import { useActions } from "./palette.js";
import { go, sessionLink } from "./route.js";
import { attempt, Button, confirm, Note } from "./ui.js";
import { ago, bytes, count, visible } from "./words.js";
import { message } from "./workspace.js";

/** A directory that is open in the tree. */
interface Directory {
  entries: Entry[];
  more: boolean;
}

type Tree = ReadonlyMap<string, Directory>;

/** The files of a session: a tree of them, and one that is shown. */
export function Files({ id, path }: { id: string; path: string }) {
  const [tree, setTree] = useState<Tree>(new Map());
  const [error, setError] = useState("");
  const [over, setOver] = useState(false);
  const uploads = useUploads(id, (directory) => attempt(() => load(directory)));
  const load = async (directory: string) => {
    try {
      const listed = await listDirectory(id, directory);
      setTree((old) => new Map(old).set(directory, listed));
      setError("");
    } catch (e) {
      if (directory === "") setError(message(e));
      else throw e;
    }
  };
  const close = (directory: string) =>
    setTree((old) => new Map([...old].filter(([d]) => d !== directory && !d.startsWith(`${directory}/`))));
  const refresh = () => attempt(async () => {
    for (const directory of tree.keys()) await load(directory);
  });
  useEffect(() => {
    // The directories that lead to the file of the link.
    attempt(async () => {
      const names = path.split("/").slice(0, -1);
      for (let i = 0; i <= names.length; i++) await load(names.slice(0, i).join("/"));
    });
  }, [id]);
  useActions(() => [
    { title: "Refresh the files", run: refresh },
    { title: "Download all files as an archive", run: () => attempt(() => download(id, "", true)) },
  ]);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer) uploads.add("", droppedFiles(event.dataTransfer));
  };
  return (
    <div
      class={over ? "files over" : "files"}
      onDragOver={(e) => {
        e.preventDefault();
        setOver(true);
      }}
      onDragLeave={(e) => e.currentTarget.contains(e.relatedTarget as Node | null) || setOver(false)}
      onDrop={drop}
    >
      <section class={path ? "tree behind" : "tree"} aria-label="Files">
        <div class="bar">
          <UploadButton onFiles={(files) => uploads.add("", Promise.resolve(files))} />
          <Button kind="quiet" onClick={() => attempt(() => download(id, "", true))}>Download all</Button>
          <span class="spring" />
          <Button kind="quiet" onClick={refresh}>Refresh</Button>
        </div>
        {error && <Note kind="error">{error}</Note>}
        <UploadList uploads={uploads.list} />
        <TreeView id={id} tree={tree} selected={path} onOpen={(d) => attempt(() => load(d))} onClose={close} />
        <p class="quiet hint">Drop files or directories here to upload them.</p>
      </section>
      <section class={path ? "viewer" : "viewer behind"} aria-label="File">
        {path ? (
          <Viewer key={path} id={id} path={path} onRemoved={(d) => attempt(() => load(d))} />
        ) : (
          <p class="empty">Choose a file to see it.</p>
        )}
      </section>
    </div>
  );
}

interface Row {
  path: string;
  depth: number;
  entry: Entry;
}

function rows(tree: Tree, directory = "", depth = 1): Row[] {
  return (tree.get(directory)?.entries ?? []).flatMap((entry) => {
    const path = directory ? `${directory}/${entry.name}` : entry.name;
    return [{ path, depth, entry }, ...(tree.has(path) ? rows(tree, path, depth + 1) : [])];
  });
}

/** The tree. Arrow keys move in it and open and close directories, as in trees elsewhere. */
function TreeView({ id, tree, selected, onOpen, onClose }: {
  id: string;
  tree: Tree;
  selected: string;
  onOpen: (directory: string) => void;
  onClose: (directory: string) => void;
}) {
  const all = rows(tree);
  const list = useRef<HTMLUListElement>(null);
  const [at, setAt] = useState("");
  const current = all.some((r) => r.path === at) ? at : all.some((r) => r.path === selected) ? selected : (all[0]?.path ?? "");
  const activate = (row: Row) => {
    setAt(row.path);
    if (row.entry.kind !== "directory") go(sessionLink(id, "files", row.path));
    else if (tree.has(row.path)) onClose(row.path);
    else onOpen(row.path);
  };
  const focus = (i: number) => {
    const row = all[i];
    if (!row) return;
    setAt(row.path);
    (list.current?.children[i] as HTMLElement | undefined)?.focus();
  };
  const key = (event: KeyboardEvent) => {
    const i = all.findIndex((r) => r.path === current);
    const row = all[i];
    if (!row) return;
    const directory = row.entry.kind === "directory";
    switch (event.key) {
      case "ArrowDown": focus(i + 1); break;
      case "ArrowUp": focus(i - 1); break;
      case "Home": focus(0); break;
      case "End": focus(all.length - 1); break;
      case "ArrowRight":
        if (directory && !tree.has(row.path)) onOpen(row.path);
        else if (directory) focus(i + 1);
        break;
      case "ArrowLeft":
        if (directory && tree.has(row.path)) onClose(row.path);
        else focus(all.findIndex((r) => row.path.startsWith(`${r.path}/`) && r.depth === row.depth - 1));
        break;
      case "Enter":
      case " ": activate(row); break;
      default: return;
    }
    event.preventDefault();
  };
  if (tree.has("") && all.length === 0) return <p class="empty">No files.</p>;
  return (
    <>
      <ul ref={list} role="tree" aria-label="Files of the session" onKeyDown={key}>
        {all.map((row) => (
          <li
            key={row.path}
            role="treeitem"
            class={`level-${Math.min(row.depth, 12)} ${row.entry.kind}`}
            aria-level={row.depth}
            aria-expanded={row.entry.kind === "directory" ? tree.has(row.path) : undefined}
            aria-selected={row.path === selected}
            tabIndex={row.path === current ? 0 : -1}
            onClick={() => activate(row)}
          >
            <span class="name">{visible(row.entry.name)}{row.entry.link !== undefined && ` → ${visible(row.entry.link)}`}</span>
            <span class="quiet number">{row.entry.kind === "file" ? bytes(row.entry.size ?? 0) : ""}</span>
          </li>
        ))}
      </ul>
      {[...tree].filter(([, d]) => d.more).map(([path]) => (
        <Note key={path} kind="info">{path || "The directory"} has more entries than are shown.</Note>
      ))}
    </>
  );
}

/** One file: what it is, and its content if that can be shown. */
function Viewer({ id, path, onRemoved }: { id: string; path: string; onRemoved: (directory: string) => void }) {
  const [entry, setEntry] = useState<Entry>();
  const [content, setContent] = useState<Content>();
  const [error, setError] = useState("");
  useEffect(() => {
    let over = false;
    const read = async () => {
      const found = await statFile(id, path);
      if (over) return;
      setEntry(found);
      if (found.kind === "directory") setContent({ kind: "none", why: "This is a directory." });
      else if (found.kind === "other") setContent({ kind: "none", why: "This is not a regular file." });
      else {
        const read = await readFile(id, path, found.kind === "symlink" ? maxDownload : (found.size ?? 0));
        if (!over) setContent(read);
      }
    };
    read().catch((e: unknown) => over || setError(message(e)));
    return () => {
      over = true;
    };
  }, [id, path]);
  const directory = entry?.kind === "directory";
  const tooLarge = (entry?.size ?? 0) > maxDownload;
  const remove = () =>
    attempt(async () => {
      const what = directory ? `the directory ${visible(path)} with everything in it` : visible(path);
      if (!(await confirm(`Remove ${what}? There is no way back.`, "Remove"))) return;
      await removeFile(id, path, directory);
      onRemoved(path.split("/").slice(0, -1).join("/"));
      go(sessionLink(id, "files"));
    });
  return (
    <>
      <header class="bar">
        <a class="back" href={sessionLink(id, "files")}>All files</a>
        <h2 class="mono command" title={visible(path)}>{visible(path)}</h2>
        {entry && <span class="quiet roomy">{facts(entry)}</span>}
        <span class="spring" />
        {entry && !tooLarge && <Button onClick={() => attempt(() => download(id, path, directory))}>Download</Button>}
        {entry && <Button kind="danger" onClick={remove}>Remove</Button>}
      </header>
      {error && <Note kind="error">{error}</Note>}
      {tooLarge && <Note kind="info">Too large for a browser: <code>troupe cp {id}:{path} .</code></Note>}
      {content && <Shown content={content} name={visible(path)} />}
    </>
  );
}

function facts(e: Entry): string {
  const size = e.kind === "file" ? bytes(e.size ?? 0) : e.kind;
  const mode = e.mode === undefined ? "" : ` · ${(e.mode & 0o777).toString(8).padStart(4, "0")}`;
  return `${size}${mode}${e.modified ? ` · ${ago(e.modified)} ago` : ""}`;
}

function Shown({ content, name }: { content: Content; name: string }) {
  const [url, setUrl] = useState("");
  const blob = content.kind === "image" ? content.blob : undefined;
  useEffect(() => {
    if (!blob) return;
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  if (content.kind === "none") return <p class="empty">{content.why}</p>;
  if (content.kind === "image") return <div class="image">{url && <img src={url} alt={name} />}</div>;
  return (
    <>
      <pre class="output text" tabIndex={0} aria-label={`Content of ${name}`}>{content.text}</pre>
      {content.cut && <Note kind="info">This is the beginning. Download the file to see all of it.</Note>}
    </>
  );
}

// Uploads.

interface Upload extends Dropped {
  sent: number;
  state: "waiting" | "sending" | "done" | "skipped" | "failed";
  error?: string;
}

/** Uploads files, one after the other. What is there already is replaced only when its owner says so. */
function useUploads(id: string, onDone: (directory: string) => void) {
  const [list, setList] = useState<Upload[]>([]);
  const turn = useRef<Promise<unknown>>(Promise.resolve());
  const draw = () => setList((old) => [...old]);
  const send = async (u: Upload, directory: string) => {
    const path = [directory, jsonName(u.path)].filter(Boolean).join("/");
    const progress = (sent: number) => {
      u.sent = sent;
      draw();
    };
    u.state = "sending";
    draw();
    try {
      try {
        await upload(id, path, u.file, false, progress);
      } catch (e) {
        if (!(e instanceof Problem) || e.status !== 412) throw e;
        if (!(await confirm(`${visible(path)} exists. Replace it?`, "Replace"))) {
          u.state = "skipped";
          return;
        }
        await upload(id, path, u.file, true, progress);
      }
      u.state = "done";
    } catch (e) {
      u.state = "failed";
      u.error = message(e);
    } finally {
      draw();
    }
  };
  const add = (directory: string, files: Promise<Dropped[]>) =>
    attempt(async () => {
      const added = (await files).map((f): Upload => ({ ...f, sent: 0, state: "waiting" }));
      setList((old) => [...old.filter((u) => u.state === "waiting" || u.state === "sending"), ...added]);
      for (const u of added) turn.current = turn.current.then(() => send(u, directory));
      await turn.current;
      onDone(directory);
    });
  return { list, add };
}

function UploadList({ uploads }: { uploads: Upload[] }) {
  if (uploads.length === 0) return null;
  const open = uploads.filter((u) => u.state === "waiting" || u.state === "sending");
  const failed = uploads.filter((u) => u.state === "failed");
  const current = open.find((u) => u.state === "sending");
  const done = uploads.filter((u) => u.state === "done").length;
  return (
    <div class="uploads" role="status">
      {current && (
        <label>
          Uploading {visible(current.path)} ({bytes(current.sent)} of {bytes(current.file.size)})
          {open.length > 1 && `, ${open.length - 1} more`}
          <progress max={Math.max(current.file.size, 1)} value={current.sent} />
        </label>
      )}
      {!current && done > 0 && <p>{count(done, "file")} uploaded</p>}
      {failed.map((u) => <Note key={u.path} kind="error">{visible(u.path)}: {u.error}</Note>)}
    </div>
  );
}

function UploadButton({ onFiles }: { onFiles: (files: Dropped[]) => void }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        aria-label="Files to upload"
        onChange={(e) => {
          onFiles([...(e.currentTarget.files ?? [])].map((file) => ({ path: file.name, file })));
          e.currentTarget.value = "";
        }}
      />
      <Button onClick={() => input.current?.click()}>Upload</Button>
    </>
  );
}
