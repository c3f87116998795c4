// The worker in which the second verifier judges a pack: the page stays usable meanwhile.

import { verifyPack } from "./verifier/verify.mjs";

/** A browser without Ed25519 would call every signature wrong. */
async function able() {
  try {
    await crypto.subtle.importKey("raw", new Uint8Array(32), "Ed25519", false, ["verify"]);
    return true;
  } catch {
    return false;
  }
}

addEventListener("message", async ({ data: { files, known } }) => {
  try {
    if (!(await able())) return postMessage({ failed: "This browser cannot check Ed25519 signatures; take a newer one." });
    let last = 0;
    const verdict = await verifyPack(files, known, (done, all) => {
      if (done - last >= 4096 || done === all) postMessage({ done: (last = done), all });
    });
    postMessage({ verdict });
  } catch (error) {
    postMessage({ failed: `The verifier itself failed: ${error.message}` });
  }
});
