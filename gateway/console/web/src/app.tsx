import { useEffect } from "preact/hooks";
import { tryToken } from "./api.js";
import { auth } from "./auth.js";
import { openPalette, Palette, useActions } from "./palette.js";
import { forgetPods, Pods } from "./pods.js";
import { go, podsLink, route, sessionsLink } from "./route.js";
import { SessionPage } from "./session.js";
import { Sessions } from "./sessions.js";
import { SignIn } from "./signin.js";
import { useStore } from "./store.js";
import { nextTheme, theme } from "./theme.js";
import { Button, Questions, Toasts } from "./ui.js";
import { leaveAll } from "./workspace.js";

/** The console: a bar, the page that the URL names, and what lies over it. */
export function App() {
  const state = useStore(auth.state);
  useEffect(() => {
    // A server without authentication accepts an empty token, and may still refuse the list.
    tryToken(auth.token).then(
      () => auth.accepted(),
      () => auth.state.value === "unknown" && auth.accepted(),
    );
  }, []);
  return (
    <>
      <TopBar />
      {state === "asked" || state === "expired" ? <SignIn expired={state === "expired"} /> : state === "in" && <Page />}
      <Palette />
      <Questions />
      <Toasts />
    </>
  );
}

function Page() {
  const to = useStore(route);
  useEffect(() => {
    document.title = to.page === "session" ? `${to.id.slice(-8)} · troupe` : "troupe";
  }, [to]);
  switch (to.page) {
    case "sessions":
      return <Sessions />;
    case "pods":
      return <Pods />;
    case "session":
      return <SessionPage id={to.id} view={to.view} item={to.item} />;
    default:
      return (
        <main class="page">
          <p class="empty">There is no such page. <a href={sessionsLink}>All sessions</a></p>
        </main>
      );
  }
}

function TopBar() {
  const to = useStore(route);
  const look = useStore(theme);
  const signedIn = useStore(auth.state) === "in" && auth.token !== "";
  const signOut = () => {
    leaveAll();
    forgetPods();
    auth.signOut();
  };
  useActions(() => [
    { title: "All sessions", run: () => go(sessionsLink) },
    { title: "Pods", run: () => go(podsLink) },
    { title: "Change between light and dark", hint: look, run: nextTheme },
    ...(signedIn ? [{ title: "Sign out", run: signOut }] : []),
  ]);
  return (
    <header class="top">
      <a class="brand" href={sessionsLink}>troupe</a>
      <nav aria-label="Pages">
        <a href={sessionsLink} aria-current={to.page === "sessions" ? "page" : undefined}>Sessions</a>
        <a href={podsLink} aria-current={to.page === "pods" ? "page" : undefined}>Pods</a>
      </nav>
      <span class="spring" />
      <Button kind="quiet" label="Ctrl K: command palette" onClick={openPalette}>
        <kbd>Ctrl K</kbd>
      </Button>
      <Button kind="quiet" label={`Colours: ${look}`} onClick={nextTheme}>
        {look === "system" ? "◐" : look === "light" ? "○" : "●"}
      </Button>
      {signedIn && <Button kind="quiet" onClick={signOut}>Sign out</Button>}
    </header>
  );
}
