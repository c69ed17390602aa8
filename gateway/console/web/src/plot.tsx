import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { isDark, onTheme } from "./theme.js";

export interface Series {
  name: string;
  /** One for each time; null: not known. */
  values: (number | null)[];
}

/** Colours of the lines, each with a contrast of at least 3 to the page (WCAG 2.2, 1.4.11). */
const colours = {
  light: ["#0b6e7f", "#b3551c", "#6a3fb5", "#17703a", "#b3202c", "#52606c"],
  dark: ["#5ec4d4", "#f0a36b", "#b79bf2", "#6ccb8b", "#ff8d8d", "#9fabb7"],
};

const height = 150;

/** Lines over time. A table of the last values, which says the same, belongs beside it. */
export function Plot({ title, times, series, format }: {
  title: string;
  times: number[]; // seconds
  series: Series[];
  format: (value: number) => string;
}) {
  const element = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const names = series.map((s) => s.name).join("\n");
  useEffect(() => {
    const parent = element.current as HTMLElement;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(series, format, parent.clientWidth), [], parent);
      plot.current.setData([times, ...series.map((s) => s.values)] as uPlot.AlignedData);
    };
    draw();
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: parent.clientWidth, height }));
    observer.observe(parent);
    const leave = onTheme(draw);
    return () => {
      leave();
      observer.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [names]);
  useEffect(() => {
    plot.current?.setData([times, ...series.map((s) => s.values)] as uPlot.AlignedData);
  }, [times.at(-1)]);
  return (
    <figure class="plot">
      <figcaption>{title}</figcaption>
      <div ref={element} role="img" aria-label={`${title} over the last minutes, for each pod`} />
    </figure>
  );
}

function options(series: Series[], format: (value: number) => string, width: number): uPlot.Options {
  const { ink, line, lines } = isDark()
    ? { ink: "#9fabb7", line: "#2c343d", lines: colours.dark }
    : { ink: "#52606c", line: "#dce2e6", lines: colours.light };
  const axis: uPlot.Axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, _min, max) => [0, Math.max(max ?? 0, 1) * 1.1] } },
    axes: [
      { ...axis, space: 70, values: (_, times) => times.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB")) },
      { ...axis, size: 58, space: 32, values: (_, values) => values.map((v) => (v === null ? "" : format(v))) },
    ],
    series: [{}, ...series.map((s, i): uPlot.Series => ({ label: s.name, stroke: lines[i % lines.length] as string, width: 1.75, points: { show: false } }))],
  };
}
