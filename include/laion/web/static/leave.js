// Links out of Airflow's frame. The frame may neither open windows nor navigate Airflow, so a link
// into Airflow is handed to Airflow's own router, and one to elsewhere is opened by Airflow's window.
export function leaveFrame() {
  if (window.parent === window) return;
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest?.("a[target=_blank], a[data-airflow]");
    if (!anchor || event.defaultPrevented) return;
    event.preventDefault();
    const outside = window.parent;
    const isOurs = anchor.origin === outside.location.origin;
    if (isOurs && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      outside.history.pushState(null, "", anchor.href);
      outside.dispatchEvent(new PopStateEvent("popstate"));
    } else {
      outside.open(anchor.href, "_blank", "noopener,noreferrer");
    }
  });
}
