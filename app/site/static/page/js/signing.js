// Signing in by the company's OpenID Connect issuer: the authorization code flow with PKCE (RFC 7636).
import { signal } from "../vendor/vendor.js";
import { keyNeeded, setKey } from "./api.js";

const KEPT = "densityd-sign-in";
const described = document.querySelector('meta[name="sign-in"]');
const issuer = described && JSON.parse(described.content);

/** True if the page can sign somebody in: browsers digest on pages of HTTPS and of this machine alone. */
export const canSignIn = issuer !== null && window.isSecureContext;
/** Why the last sign-in failed; empty if none did. */
export const failure = signal("");

const home = () => window.location.origin + window.location.pathname;
const text = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => text(crypto.getRandomValues(new Uint8Array(32)));

/** Go to the issuer; it leads back to this page. */
export async function signIn() {
  const kept = { verifier: random(), state: random(), hash: window.location.hash };
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
  const challenge = text(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(kept.verifier)));
  const address = new URL(issuer.authorization_endpoint);
  const asked = { response_type: "code", client_id: issuer.client_id, redirect_uri: home(), scope: issuer.scope, state: kept.state, code_challenge: challenge, code_challenge_method: "S256" };
  for (const [name, value] of Object.entries(asked)) address.searchParams.set(name, value);
  window.location.assign(address);
}

/** Take the token for the code that the issuer led back with, if it did. */
export async function finishSignIn() {
  const given = new URLSearchParams(window.location.search);
  const kept = JSON.parse(sessionStorage.getItem(KEPT));
  if (!canSignIn || kept === null || given.get("state") !== kept.state) return;
  sessionStorage.removeItem(KEPT);
  window.history.replaceState(null, "", window.location.pathname + kept.hash);
  try {
    if (!given.has("code")) throw new Error(given.get("error_description") ?? given.get("error") ?? "no code came back");
    const body = new URLSearchParams({ grant_type: "authorization_code", code: given.get("code"), redirect_uri: home(), client_id: issuer.client_id, code_verifier: kept.verifier });
    const response = await fetch(issuer.token_endpoint, { method: "POST", body });
    const token = await response.json();
    if (!response.ok || !token.id_token) throw new Error(token.error_description ?? token.error ?? "no token came back");
    setKey(token.id_token);
  } catch (error) {
    failure.value = `The sign-in failed: ${error.message}.`;
    keyNeeded.value = true;
  }
}
