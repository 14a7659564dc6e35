"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const lighter = {
    "#0072b2": "#4ba9e6", "#d55e00": "#ff8b42", "#009e73": "#2fc79b", "#cc79a7": "#e4a0c6", "#e69f00": "#f3b73c",
    "#56b4e9": "#93d0f5", "#555555": "#b7c0ca", "#8c510a": "#d39a60",
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shade = (value) => (dark.matches && lighter[value?.toLowerCase?.()]) || value;

  document.documentElement.classList.add("js");

  // Tabs: one panel of several.
  document.querySelectorAll(".choice").forEach((choice, number) => {
    const list = choice.querySelector(".tabs");
    const panels = [...choice.querySelectorAll(":scope > .panel")];
    list.setAttribute("role", "tablist");
    const tabs = panels.map((panel, index) => {
      const tab = document.createElement("button");
      Object.assign(tab, { type: "button", textContent: panel.dataset.label, id: `tab-${number}-${index}` });
      panel.id = `panel-${number}-${index}`;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      tab.addEventListener("click", () => select(index));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) {
          select((index + step + tabs.length) % tabs.length).focus();
        }
      });
      list.append(tab);
      return tab;
    });
    const select = (chosen) => {
      tabs.forEach((tab, index) => {
        tab.setAttribute("aria-selected", String(index === chosen));
        tab.tabIndex = index === chosen ? 0 : -1;
        panels[index].hidden = index !== chosen;
      });
      return tabs[chosen];
    };
    select(0);
  });

  document.querySelectorAll("figure .download").forEach((link) => {
    link.href = link.closest("figure").querySelector("img").src;
  });

  document.querySelectorAll(".copy").forEach((button) => {
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  });

  // Figures: plotly draws each one when it comes near; until then, and without plotly, there is the picture for print.
  const themed = (value) => {
    if (Array.isArray(value)) return value.map(themed);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, themed(part)]));
    }
    return typeof value === "string" ? shade(value) : value;
  };

  const axis = (given) => ({
    ...given, gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, showgrid: true, ticks: "",
    title: { ...given?.title, font: { size: 13 }, standoff: 8 },
  });

  const layout = (given) => ({
    ...given, xaxis: axis(given.xaxis), yaxis: axis(given.yaxis), showlegend: false, height: 330,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 12, t: 10, b: 8, autoexpand: true },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--text") },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") }, namelength: -1 },
    dragmode: touch ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--accent") },
  });

  const options = {
    responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "toImage"],
  };

  const dashes = { dash: "6 3", dot: "2 3", dashdot: "6 3 2 3", longdashdot: "9 3 2 3" };

  const sample = (trace) => {
    const of = shade(trace.line?.color ?? trace.marker?.color ?? "#555555");
    const stroke = dashes[trace.line?.dash] ? ` stroke-dasharray="${dashes[trace.line.dash]}"` : "";
    const drawing = trace.mode?.includes("lines")
      ? `<path d="M0 6H24" stroke="${of}" stroke-width="2.5"${stroke}/>`
      : `<rect x="6" y="1" width="11" height="10" rx="${trace.mode ? 6 : 2}" fill="${of}"/>`;
    return `<svg width="24" height="12" aria-hidden="true">${drawing}</svg>`;
  };

  const plainText = (html) => new DOMParser().parseFromString(html, "text/html").body.textContent;

  // The legend: a button for each name, which shows or hides its traces.
  const legend = (figure, plot, traces) => {
    const named = traces.filter((trace) => trace.name && trace.showlegend !== false);
    named.sort((one, other) => (one.legendrank ?? 0) - (other.legendrank ?? 0));
    const box = figure.querySelector(".legend");
    const pressed = [...box.children].map((button) => button.getAttribute("aria-pressed"));
    box.replaceChildren();
    if (named.length < 2) return;
    named.forEach((trace, number) => {
      const own = traces.flatMap((other, index) =>
        other === trace || (trace.legendgroup && other.legendgroup === trace.legendgroup) ? [index] : []);
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = sample(trace);
      button.append(plainText(trace.name));
      const show = (visible) => {
        button.setAttribute("aria-pressed", String(visible));
        return Plotly.restyle(plot, { visible }, own);
      };
      button.setAttribute("aria-pressed", pressed[number] ?? "true");
      if (pressed[number] === "false") show(false);
      button.addEventListener("click", () => show(button.getAttribute("aria-pressed") === "false"));
      box.append(button);
    });
  };

  const draw = async (figure) => {
    const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const plot = figure.querySelector(".plot");
    const traces = themed(spec.data);
    figure.classList.add("drawn");
    traces.filter((trace) => trace.type === "heatmap").forEach((trace) => {
      trace.colorbar = { ...trace.colorbar, outlinewidth: 0 };
    });
    await Plotly.react(plot, traces, layout(themed(spec.layout)), options);
    legend(figure, plot, spec.data);
    figure.dataset.ready = "true";
  };

  const load = async () => {
    const packed = document.getElementById("plotly");
    if (!packed || typeof DecompressionStream === "undefined") return;
    const letters = atob(packed.textContent);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    const figures = [...document.querySelectorAll("figure.chart")].filter((one) => one.querySelector(".plot"));
    const observer = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
        observer.unobserve(entry.target);
        draw(entry.target);
      });
    }, { rootMargin: "300px" });
    figures.forEach((figure) => observer.observe(figure));
    dark.addEventListener("change", () => figures.filter((figure) => figure.dataset.ready).forEach(draw));
    document.documentElement.dataset.plotly = "ready";
  };
  load();
})();
