
"use strict";
// The only script of the sign-in pages: it asks the browser for a passkey and submits a form with the answer.
(() => {
  const bytes = (text) =>
    Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replaceAll("+", "-")
      .replaceAll("/", "_")
      .replaceAll("=", "");
  const parsed = (json) => {
    const options = JSON.parse(json);
    options.challenge = bytes(options.challenge);
    for (const known of [...(options.allowCredentials ?? []), ...(options.excludeCredentials ?? [])]) {
      known.id = bytes(known.id);
    }
    if (options.user) options.user.id = bytes(options.user.id);
    return options;
  };
  const answer = (credential) => {
    const response = {};
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (credential.response[name]) response[name] = text(credential.response[name]);
    }
    const { id, type } = credential;
    return JSON.stringify({ id, type, rawId: text(credential.rawId), response, clientExtensionResults: {} });
  };
  const said = {
    NotAllowedError: "It was cancelled, or it took too long. Try again.",
    InvalidStateError: "This device has a passkey of yours already.",
  };
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    if (!window.PublicKeyCredential) continue;
    form.hidden = false;
    form.nextElementSibling.hidden = true; // what is said where there is no script, or no passkeys
    const alert = form.querySelector("[role=alert]");
    form.querySelector("button").addEventListener("click", async () => {
      alert.hidden = true;
      try {
        const publicKey = parsed(form.dataset.passkey);
        const asked = publicKey.user ? navigator.credentials.create : navigator.credentials.get;
        form.elements.credential.value = answer(await asked.call(navigator.credentials, { publicKey }));
        form.requestSubmit();
      } catch (error) {
        alert.textContent = said[error.name] ?? "This browser could not use a passkey here: " + error.name + ".";
        alert.hidden = false;
      }
    });
  }
})();
