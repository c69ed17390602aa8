import { render } from "preact";
import { App } from "./app.js";
import "@xterm/xterm/css/xterm.css";
import "uplot/dist/uPlot.min.css";
import "./style.css";

render(<App />, document.getElementById("app") as HTMLElement);
