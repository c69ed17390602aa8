import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Store, useStore } from "./store.js";
import { Dialog } from "./ui.js";

/** Something that the palette offers. */
export interface Action {
  title: string;
  hint?: string;
  run: () => void;
}

const sources = new Set<() => Action[]>();
const isOpen = new Store(false);

/** Offers actions while the component is shown. */
export function useActions(actions: () => Action[]): void {
  const current = useRef(actions);
  current.current = actions;
  // Not useEffect, which comes after a frame: the palette may be opened before.
  useLayoutEffect(() => {
    const source = () => current.current();
    sources.add(source);
    return () => void sources.delete(source);
  }, []);
}

export function openPalette(): void {
  isOpen.set(true);
}

// Ctrl-K cuts to the end of the line in shells, so a terminal keeps it, and Ctrl-Shift-K opens the palette there.
addEventListener(
  "keydown",
  (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.key.toLowerCase() !== "k") return;
    const inTerminal = event.target instanceof Element && event.target.closest(".terminal") !== null;
    if (inTerminal && !event.shiftKey && !event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    isOpen.set(!isOpen.value);
  },
  { capture: true },
);

export function Palette() {
  return useStore(isOpen) ? <OpenPalette /> : null;
}

const maxShown = 12;

function OpenPalette() {
  const [text, setText] = useState("");
  const [chosen, choose] = useState(0);
  const all = useRef([...sources].flatMap((source) => source()));
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = all.current
    .filter((a) => words.every((w) => `${a.title} ${a.hint ?? ""}`.toLowerCase().includes(w)))
    .slice(0, maxShown);
  const run = (action: Action | undefined) => {
    if (!action) return;
    isOpen.set(false);
    action.run();
  };
  const key = (event: KeyboardEvent) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step) {
      event.preventDefault();
      choose((chosen + step + found.length) % Math.max(found.length, 1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      run(found[chosen]);
    }
  };
  return (
    <Dialog label="Command palette" kind="palette" onClose={() => isOpen.set(false)}>
      <input
        role="combobox"
        aria-label="Find an action or a session"
        aria-expanded="true"
        aria-controls="palette-list"
        aria-activedescendant={found.length > 0 ? `palette-${chosen}` : undefined}
        placeholder="Go to, run, end…"
        value={text}
        onInput={(e) => {
          setText(e.currentTarget.value);
          choose(0);
        }}
        onKeyDown={key}
      />
      <ul id="palette-list" role="listbox" aria-label="Actions">
        {found.map((action, i) => (
          <li
            key={i}
            id={`palette-${i}`}
            role="option"
            aria-selected={i === chosen}
            onPointerMove={() => choose(i)}
            onClick={() => run(action)}
          >
            <span>{action.title}</span>
            {action.hint && <span class="quiet">{action.hint}</span>}
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="quiet">Nothing of that name.</p>}
    </Dialog>
  );
}
