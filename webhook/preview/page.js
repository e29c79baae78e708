(async () => {
  const reason = document.getElementById("reason");
  for (;;) {
    await new Promise((later) => setTimeout(later, 2000));
    try {
      const answer = await fetch(location.href, { headers: { accept: "application/json" }, cache: "no-store" });
      const ours = answer.headers.get("x-sandbox-error") !== null && answer.headers.get("content-type") === "application/json";
      const said = ours ? await answer.json() : null;
      if (said === null || !said.retry || said.error !== document.title) { location.reload(); return; }
      if (reason.textContent !== said.reason) reason.textContent = said.reason;
    } catch { /* the network, or the gateway, is away: look again */ }
  }
})();
