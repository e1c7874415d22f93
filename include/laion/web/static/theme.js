// Light or dark as Airflow around us is, or as the system prefers when we stand alone.
(() => {
  const root = document.documentElement;
  const outside = () => {
    try {
      return window.parent === window ? null : window.parent.document.documentElement;
    } catch {
      return null;
    }
  };
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const airflow = outside();
    const isDark = airflow ? airflow.classList.contains("dark") : system.matches;
    root.dataset.theme = isDark ? "dark" : "light";
  };
  apply();
  system.addEventListener("change", apply);
  const airflow = outside();
  if (airflow) new MutationObserver(apply).observe(airflow, { attributeFilter: ["class"] });
})();
