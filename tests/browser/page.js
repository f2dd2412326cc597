// The page of every story: notes what reaches it that should not, counts frames, and starts a client.

window.troubles = [];
addEventListener("error", (event) => troubles.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => troubles.push(`rejection: ${event.reason}`));

window.ticks = 0;
const tick = () => {
  ticks++;
  requestAnimationFrame(tick);
};
tick();

window.receipts = [];
const entry = import("/sdk/index.js");

/** Starts a client; resolves as soon as it is there. */
window.start = async (options) => {
  const { init } = await entry;
  window.client = init({ ...options, onReceipt: (receipt) => receipts.push(receipt) });
};

/** Starts a client, records rows of one event, and waits until it has joined what it joins. */
window.visit = async (options, event, rows) => {
  await start(options);
  for (const row of rows) await client.record(event, row);
  await client.ready;
};

/** Names and number of everything that is stored under this origin. */
window.stored = async () => {
  const found = {};
  for (const { name } of await indexedDB.databases()) {
    const db = await new Promise((resolve, reject) => {
      const request = indexedDB.open(name);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    for (const store of db.objectStoreNames) {
      found[store] = await new Promise((resolve, reject) => {
        const request = db.transaction(store).objectStore(store).count();
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    }
    db.close();
  }
  return found;
};
