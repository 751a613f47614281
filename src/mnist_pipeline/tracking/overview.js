// Shows an experiment's runs with their results, by whichever link one comes: MLflow itself shows the columns of a view
// only where the address names it. Who leaves the view stays without it, until another page has been opened.
(() => {
  const experiments = new Set(EXPERIMENTS);
  let shown = null;
  const show = () => {
    const [path, query = ""] = location.hash.slice(1).split("?");
    const found = path.match(/^\/experiments\/(\d+)(\/runs)?$/);
    const words = new URLSearchParams(query);
    const isPlain = !words.has("viewStateShareKey") && !words.has("searchFilter");
    if (found && found[1] !== shown && isPlain && experiments.has(found[1])) {
      words.set("viewStateShareKey", "overview");
      words.set("workflowType", "machine_learning");
      setTimeout(() => location.replace(`#/experiments/${found[1]}/runs?${words}`));
    }
    shown = found && found[1];
  };
  for (const name of ["pushState", "replaceState"]) {
    const original = history[name];
    history[name] = function (...given) {
      original.apply(this, given);
      show();
    };
  }
  addEventListener("popstate", show);
  show();
})();
