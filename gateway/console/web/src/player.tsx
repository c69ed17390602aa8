import { Terminal } from "@xterm/xterm";
import { useEffect, useRef, useState } from "preact/hooks";
import { readRecording } from "./api.js";
import { Playback } from "./recording.js";
import { terminalOptions, themeNow } from "./shell.js";
import { useStore } from "./store.js";
import { onTheme } from "./theme.js";
import { Button, Note, save } from "./ui.js";
import { seconds } from "./words.js";
import { message } from "./workspace.js";

const speeds = [1, 2, 4];

/** Plays what a terminal has shown, as far as the server has kept it, from its start, or follows what it shows now. */
export function Player({ id, execution, follow = false, onClose }: {
  id: string;
  execution: string;
  follow?: boolean;
  onClose?: () => void;
}) {
  const place = useRef<HTMLDivElement>(null);
  const [playback, setPlayback] = useState<Playback>();
  const [error, setError] = useState("");
  useEffect(() => {
    const terminal = new Terminal({ ...terminalOptions(), disableStdin: true, cursorBlink: false });
    const leaveTheme = onTheme(() => (terminal.options.theme = themeNow()));
    const over = new AbortController();
    const played = new Playback(terminal, follow);
    terminal.open(place.current as HTMLElement);
    setPlayback(played);
    if (follow) played.toggle();
    readRecording(id, execution, follow, over.signal, (text) => played.add(text)).then(
      () => {
        played.end();
        if (!follow) played.toggle();
      },
      (e: unknown) => over.signal.aborted || setError(message(e)),
    );
    return () => {
      over.abort();
      played.stop();
      leaveTheme();
      terminal.dispose();
    };
  }, [id, execution]);
  return (
    <section class="player" aria-label="Recording">
      {error && <Note kind="error">{error}</Note>}
      <div class="place" ref={place} />
      <div class="bar">
        {playback && <Controls playback={playback} />}
        {playback && !error && <Button kind="quiet" onClick={() => save(playback.text, "recording.cast")}>Download</Button>}
        {onClose && <Button kind="quiet" label="Close the recording" onClick={onClose}>Close</Button>}
      </div>
    </section>
  );
}

function Controls({ playback }: { playback: Playback }) {
  const at = useStore(playback.at);
  const playing = useStore(playback.playing);
  const [speed, setSpeed] = useState(playback.speed);
  const choose = (s: number) => {
    playback.speed = s;
    setSpeed(s);
  };
  const total = useStore(playback.seconds);
  return (
    <>
      <Button onClick={() => playback.toggle()}>{playing ? "Pause" : "Play"}</Button>
      <input
        type="range"
        aria-label="Position"
        min={0}
        max={total}
        step="any"
        value={at}
        onInput={(e) => playback.seek(Number(e.currentTarget.value))}
      />
      <span class="quiet number">{seconds(at)} of {seconds(total)}</span>
      <span class="switch" role="group" aria-label="Speed">
        {speeds.map((s) => <Button key={s} pressed={s === speed} onClick={() => choose(s)}>{s}×</Button>)}
      </span>
    </>
  );
}
