(async () => {
  const reason = document.getElementById("reason");
  for (;;) {
    await new Promise((later) => setTimeout(later, 2000));
    try {
      const answer = await fetch(location.href, { headers: { accept: "application/json" }, cache: "no-store" });
      const said = answer.status === 503 && answer.headers.get("x-sandbox-error") !== null ? await answer.json() : null;
      if (said === null || !said.retry) { location.reload(); return; }
      if (reason.textContent !== said.reason) reason.textContent = said.reason;
    } catch { /* the network, or the gateway, is away: look again */ }
  }
})();
