import { useEffect, useRef, useState } from "preact/hooks";
import { tryToken } from "./api.js";
import { auth } from "./auth.js";
import { Button, Note } from "./ui.js";
import { message } from "./workspace.js";

/** Asks for the token, because the server does. */
export function SignIn({ expired }: { expired: boolean }) {
  const [token, setToken] = useState("");
  const [keep, setKeep] = useState(auth.kept);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.focus(), []);
  const submit = async (event: Event) => {
    event.preventDefault();
    const given = token.trim();
    setBusy(true);
    setError("");
    try {
      if (/[^\x21-\x7e]/.test(given)) throw new Error("A token has no spaces, and no characters other than ASCII's.");
      await tryToken(given);
      auth.signIn(given, keep);
    } catch (e) {
      setError(message(e));
      input.current?.focus();
    } finally {
      setBusy(false);
    }
  };
  return (
    <main class="signin">
      <form class="card" onSubmit={(e) => void submit(e)}>
        <h1>Sign in</h1>
        {expired && <Note kind="warning">Your token is not accepted any more. Sign in again to go on where you were.</Note>}
        <label>
          Token
          <input
            ref={input}
            type="password"
            name="token"
            class="mono"
            autocomplete="off"
            spellcheck={false}
            value={token}
            onInput={(e) => setToken(e.currentTarget.value)}
            aria-describedby="token-help"
          />
        </label>
        <p id="token-help" class="quiet">
          The one that <code>troupe</code> takes as <code>TROUPE_TOKEN</code>. It is sent to this server only, in a header.
        </p>
        <label class="check">
          <input type="checkbox" checked={keep} onChange={(e) => setKeep(e.currentTarget.checked)} />
          Keep it in this tab until it is closed, also over a reload
        </label>
        {error && <Note kind="error">{error}</Note>}
        <Button submit kind="primary" disabled={busy || !token.trim()}>{busy ? "Signing in…" : "Sign in"}</Button>
      </form>
    </main>
  );
}
