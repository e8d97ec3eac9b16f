// Verifies a proof (docs/proofs.md) in the browser: no server, no network. The same steps, findings and sentences as
// protocol/proof_verify.py and its parts; tests/unit/test_verify_page.py holds the two together. What it does not
// check (authorities behind certificates, revocation, time-stamp tokens) it says.
"use strict";

const FORMAT = "lienthong-proof+1";
const TRUST_FORMAT = "lienthong-trust+1";
const SEAL_TYPE = "lienthong-seal+1";
const ACKNOWLEDGEMENT_TYPE = "lienthong-ack+1";
const MANIFEST_TYPE = "lienthong-manifest+1";
const RESERVED_TYPES = "lienthong-";
const ALGORITHMS = ["ES256", "EdDSA", "RS256", "PS256"];
const MAX_BYTES = 64 * 1024 * 1024;
// A file that is chosen: the largest message that a hub takes unless told otherwise. Chromium 156 reads none of 3 GiB.
const MAX_CHOSEN = 512 * 1024 * 1024;
const SKEW = 5 * 60 * 1000;
const SLACK = 60 * 1000;
const DAY = 24 * 60 * 60 * 1000;
const LONGEST_PROMISE_SECONDS = 7 * 86400;
const SHOWN = 12;
const ENDS = ["acknowledged", "refused", "expired", "recalled"];

class Refused extends Error {}
class MissingAlgorithm extends Error {}

// -- bytes ---------------------------------------------------------------------------------------

const utf8 = (text) => new TextEncoder().encode(text);
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const same = (a, b) => a.length === b.length && a.every((byte, place) => byte === b[place]);

function join(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

function text(bytes, what) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refused(`${what} is not UTF-8`);
  }
}

function json(source, what, reviver) {
  try {
    return JSON.parse(source, reviver);
  } catch {
    throw new Refused(`${what} is not JSON`);
  }
}

// What was signed. Half a character, which JSON can escape, is no text: the command refuses it too.
function signedJson(source, what) {
  return json(source, what, (name, value) => {
    if (/\p{Surrogate}/u.test(name) || (typeof value === "string" && /\p{Surrogate}/u.test(value))) throw new Error();
    return value;
  });
}

function toBase64(bytes) {
  let binary = "";
  for (let place = 0; place < bytes.length; place += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(place, place + 0x8000));
  }
  return btoa(binary);
}

// Standard base64 with padding, written in the one right way.
function fromBase64(source, what = "something in the file") {
  try {
    const bytes = Uint8Array.from(atob(source), (letter) => letter.charCodeAt(0));
    if (toBase64(bytes) === source) return bytes;
  } catch {
    // told below
  }
  throw new Refused(`${what} is not base64 as it must be`);
}

const toBase64url = (bytes) => toBase64(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

function fromBase64url(source, what) {
  if (typeof source !== "string" || !/^[A-Za-z0-9_-]*$/.test(source)) throw new Refused(`${what} is not base64url`);
  const padded = source.replace(/-/g, "+").replace(/_/g, "/") + "=".repeat((4 - (source.length % 4)) % 4);
  return fromBase64(padded, what);
}

const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

// -- times, as people in Vietnam read them -------------------------------------------------------

function moment(source) {
  if (typeof source === "string" && /^[2-8]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$/.test(source)) {
    const at = Date.parse(source);
    // Browsers take 30 February for 2 March, and 24:00 for the next day.
    const [year, month, day, hour] = source.split(/[-T:]/, 4).map(Number);
    if (!Number.isNaN(at) && hour < 24 && day <= new Date(Date.UTC(year, month, 0)).getUTCDate()) return at;
  }
  return null;
}

function shown(at) {
  const there = new Date(at + 7 * 3600 * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${two(there.getUTCDate())}/${two(there.getUTCMonth() + 1)}/${there.getUTCFullYear()}`;
  return `${day} ${two(there.getUTCHours())}:${two(there.getUTCMinutes())}:${two(there.getUTCSeconds())} (UTC+7)`;
}

// -- keys and signatures -------------------------------------------------------------------------

const REQUIRED = { EC: ["crv", "kty", "x", "y"], OKP: ["crv", "kty", "x"], RSA: ["e", "kty", "n"] };

// A public key as RFC 7638 writes it: its SHA-256 is its thumbprint.
function keyText(jwk) {
  const names = jwk !== null && typeof jwk === "object" ? REQUIRED[jwk.kty] : undefined;
  if (names === undefined || !names.every((name) => typeof jwk[name] === "string")) {
    throw new Refused("a public key cannot be used");
  }
  return JSON.stringify(Object.fromEntries(names.map((name) => [name, jwk[name]])));
}

const thumbprint = async (source) => toBase64url(await sha256(utf8(source)));

function parameters(jwk, alg) {
  if (alg === "ES256" && jwk.kty === "EC" && jwk.crv === "P-256") {
    return [{ name: "ECDSA", namedCurve: "P-256" }, { name: "ECDSA", hash: "SHA-256" }];
  }
  if (alg === "EdDSA" && jwk.kty === "OKP" && jwk.crv === "Ed25519") return [{ name: "Ed25519" }, { name: "Ed25519" }];
  if (jwk.kty === "RSA" && fromBase64url(jwk.n, "an RSA key").length >= 256) {
    if (alg === "RS256") return [{ name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, { name: "RSASSA-PKCS1-v1_5" }];
    if (alg === "PS256") return [{ name: "RSA-PSS", hash: "SHA-256" }, { name: "RSA-PSS", saltLength: 32 }];
  }
  return null;
}

// Whether the holder of a key (as `keyText` writes it) signed. A key verifies only algorithms of its own type.
async function verifies(source, alg, signature, signed) {
  const jwk = JSON.parse(source);
  const found = parameters(jwk, alg);
  if (found === null || (jwk.kty !== "RSA" && signature.length !== 64)) return false;
  let key;
  try {
    key = await crypto.subtle.importKey("jwk", jwk, found[0], true, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError") throw new MissingAlgorithm(alg === "EdDSA" ? "Ed25519" : alg);
    return false;
  }
  return crypto.subtle.verify(found[1], key, signature, signed);
}

function parseJws(source) {
  const parts = typeof source === "string" ? source.split(".") : [];
  if (parts.length !== 3 || parts[0].length > 4096) throw new Refused("it is not a compact JWS");
  const header = json(text(fromBase64url(parts[0], "the JWS"), "the JWS"), "the header of the JWS");
  if (header === null || typeof header !== "object" || Array.isArray(header)) {
    throw new Refused("the header of the JWS is not an object");
  }
  if (!ALGORITHMS.includes(header.alg)) throw new Refused("the JWS is signed with an algorithm that is not allowed");
  if ("crit" in header || (header.b64 !== undefined && header.b64 !== true)) {
    throw new Refused("the JWS has an extension that is not known");
  }
  let kid = header.kid === undefined || header.kid === null ? null : header.kid;
  if (kid === null && typeof header["x5t#S256"] === "string") kid = "x5t:" + header["x5t#S256"];
  // Which certificate that is does not matter here: the hub names itself by `kid`, a sender's key is named by its event.
  if (kid === null && Array.isArray(header.x5c) && typeof header.x5c[0] === "string") kid = "x5c";
  if (typeof kid !== "string" || kid === "" || kid.length > 128) throw new Refused("the JWS does not name its key");
  return {
    header,
    alg: header.alg,
    kid,
    payload: fromBase64url(parts[1], "the JWS"),
    signature: fromBase64url(parts[2], "the JWS"),
    signed: utf8(`${parts[0]}.${parts[1]}`),
  };
}

function members(jws, what) {
  const found = signedJson(text(jws.payload, what), what);
  if (found === null || typeof found !== "object" || Array.isArray(found)) throw new Refused(`${what} cannot be read`);
  return found;
}

// -- Merkle trees (RFC 9162, section 2.1) --------------------------------------------------------

const leafHash = (bytes) => sha256(join(Uint8Array.of(0), bytes));
const nodeHash = (left, right) => sha256(join(Uint8Array.of(1), left, right));

async function rootFromPath(leaf, index, size, path) {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) {
    throw new Refused("the place lies outside the tree");
  }
  // Numbers beyond 2^31: bit operators would cut them off.
  let node = BigInt(index);
  let last = BigInt(size - 1);
  let hash = leaf;
  for (const sibling of path) {
    if (last === 0n) throw new Refused("the path is longer than the tree is deep");
    if (node & 1n || node === last) {
      hash = await nodeHash(sibling, hash);
      while (!(node & 1n) && node) {
        node >>= 1n;
        last >>= 1n;
      }
    } else {
      hash = await nodeHash(hash, sibling);
    }
    node >>= 1n;
    last >>= 1n;
  }
  if (last) throw new Refused("the path is shorter than the tree is deep");
  return hash;
}

function readPath(path) {
  return path.map((step) => {
    const hash = fromBase64url(step, "a path in the file");
    if (hash.length !== 32) throw new Refused("a path in the file cannot be read");
    return hash;
  });
}

// -- the file ------------------------------------------------------------------------------------

// A shape takes a value and gives it back with its members in order, or refuses it.
const refuse = (what) => {
  throw new Refused(`the file is not a proof: ${what}`);
};
const aText = (value) => (typeof value === "string" ? value : refuse("a text is missing"));
const aCount = (value) => (Number.isSafeInteger(value) && value >= 0 ? value : refuse("a number is missing"));
const aDigest = (value) => (/^[0-9a-f]{64}$/.test(aText(value)) ? value : refuse("a digest cannot be read"));
const oneOf = (...values) => (value) =>
  values.includes(value) ? value : refuse(`it says ${typeof value === "string" ? value.slice(0, 80) : typeof value}`);
const orNull = (shape) => (value) => (value === null ? null : shape(value));
const listOf = (shape, most = Infinity) => (value) =>
  Array.isArray(value) && value.length <= most ? value.map((one) => shape(one)) : refuse("a list is missing");
const objectOf = (shapes) => (value) => {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return refuse("an object is missing");
  const names = Object.keys(shapes);
  const unknown = Object.keys(value).find((name) => !names.includes(name));
  if (unknown !== undefined) return refuse(`it has an unknown member ${unknown.slice(0, 80)}`);
  return Object.fromEntries(names.map((name) => [name, shapes[name](value[name])]));
};
const PATH = listOf(aText, 63);
const RECEIPT = objectOf({ event: aText, index: aCount, size: aCount, path: listOf(aText, 64), seal: aText });
const EVIDENCE = objectOf({
  receipt: RECEIPT,
  logged: orNull(objectOf({ index: aCount, path: PATH })),
  acknowledgement: orNull(objectOf({ jws: aText, index: aCount, size: aCount, path: PATH, key: aText })),
});
const PROOF = objectOf({
  format: oneOf(FORMAT),
  message: objectOf({ id: aText, sha256: aDigest, size: aCount, format: oneOf("jws", "manifest", "edxml", "receipt") }),
  sender: objectOf({
    signature: aText,
    index: aCount,
    path: PATH,
    key: aText,
    chain: listOf(aText),
    revocation: listOf(objectOf({ kind: oneOf("crl", "ocsp"), der: aText })),
  }),
  accepted: EVIDENCE,
  recipients: orNull(listOf(aText)),
  events: listOf(EVIDENCE),
  checkpoint: orNull(aText),
  timestamps: listOf(aText),
  signature: aText,
});

const BLANK = [0x20, 0x09, 0x0d, 0x0a];

function strip(bytes) {
  let start = 0;
  let end = bytes.length;
  while (start < end && BLANK.includes(bytes[start])) start += 1;
  while (end > start && BLANK.includes(bytes[end - 1])) end -= 1;
  return bytes.subarray(start, end);
}

function readProof(bytes) {
  const written = strip(bytes);
  if (written.length > MAX_BYTES) throw new Refused("the file is too large");
  const proof = PROOF(json(text(written, "the file"), "the file"));
  if (!same(utf8(JSON.stringify(proof)), written)) {
    throw new Refused("the file is not written as a proof is: it was altered, or put together by another program");
  }
  const encoded = [...proof.timestamps, ...proof.sender.chain, ...proof.sender.revocation.map((answer) => answer.der)];
  encoded.forEach((one) => fromBase64(one));
  if (proof.checkpoint !== null) readNote(proof.checkpoint);
  return proof;
}

async function verifyFile(proof, trust) {
  const jws = parseJws(proof.signature);
  const stated = members(jws, "the hub's signature over the file");
  const at = moment(stated.at);
  if (at === null) throw new Refused("the hub's signature over the file cannot be read");
  if (jws.header.typ !== FORMAT) throw new Refused("the signature over the file is one over something else");
  const key = trust.hubKeys.get(jws.kid);
  if (key === undefined) {
    throw new Refused(`the file was signed with the key ${jws.kid}, which is not among the trusted hub keys`);
  }
  if (!(await verifies(key, jws.alg, jws.signature, jws.signed))) {
    throw new Refused("the hub's signature over the file is wrong");
  }
  const digest = hex(await sha256(utf8(JSON.stringify({ ...proof, signature: "" }))));
  if (digest !== stated.sha256) throw new Refused("the file was altered since the hub signed it");
  return at;
}

// -- receipts ------------------------------------------------------------------------------------

async function readReceipt(trust, receipt) {
  const jws = parseJws(receipt.seal);
  const sealed = members(jws, "the seal");
  const root = fromBase64url(sealed.root, "the seal's root");
  if (jws.header.typ !== SEAL_TYPE) throw new Refused("the receipt's seal is a JWS of another type");
  const key = trust.hubKeys.get(jws.kid);
  if (key === undefined) throw new Refused(`the seal was made with the key ${jws.kid}, which is not trusted`);
  if (!(await verifies(key, jws.alg, jws.signature, jws.signed))) {
    throw new Refused("the hub's signature on the seal is wrong");
  }
  if (sealed.size !== receipt.size) throw new Refused("the receipt names another batch size than its seal");
  const leaf = await leafHash(utf8(receipt.event));
  if (!same(await rootFromPath(leaf, receipt.index, receipt.size, readPath(receipt.path)), root)) {
    throw new Refused("the event is not in the sealed batch: its text, place or path was altered");
  }
  const event = signedJson(receipt.event, "the event");
  if (event === null || typeof event !== "object" || Array.isArray(event)) throw new Refused("the event cannot be read");
  return { event, leaf, sealed, kid: jws.kid };
}

async function readEvent(work, number, evidence) {
  const { event, leaf, sealed, kid } = await readReceipt(work.trust, evidence.receipt);
  const [at, sealedAt] = [moment(event.at), moment(sealed.at)];
  const given = event.handed_over_at === undefined ? at : moment(event.handed_over_at);
  if (typeof event.event !== "string" || at === null || sealedAt === null || given === null) {
    throw new Refused("the event does not say what happened, or when");
  }
  const message = work.proof.message;
  if (event.message !== message.id || ("sha256" in event && event.sha256 !== message.sha256)) {
    throw new Refused("the event is genuine but about another message");
  }
  const promised = sealed.log !== undefined && sealed.log !== null && ![undefined, null].includes(sealed.logged_by);
  return {
    number,
    kid,
    event,
    leaf,
    at,
    sealedAt,
    hub: String(sealed.hub),
    log: promised ? String(sealed.log) : null,
    until: promised ? moment(sealed.logged_by) : null,
    logged: evidence.logged,
  };
}

async function accepted(work) {
  const { proof, verdict } = work;
  try {
    const found = await readEvent(work, 1, proof.accepted);
    const event = found.event;
    if (event.event !== "accepted") throw new Refused("the event is not one of acceptance");
    if (event.sha256 !== proof.message.sha256 || event.size !== proof.message.size) {
      throw new Refused("the event speaks of another document than the file");
    }
    if (!isCode(event.from)) throw new Refused("the event names its sender by what is no agency's code");
    if (proof.accepted.acknowledgement !== null) throw new Refused("an acceptance has no acknowledgement");
    verdict.add("accepted", "accepted", "proven", {
      hub: found.hub,
      message: proof.message.id,
      at: shown(found.at),
      endpoint: String(event.endpoint),
      from: String(event.from),
      id: String(event.id),
      size: String(proof.message.size),
      sha256: proof.message.sha256,
    });
    return found;
  } catch (error) {
    verdict.add("accepted", "accepted_wrong", "contradicted", { why: reason(error) });
    return null;
  }
}

function reason(error) {
  if (error instanceof Refused) return error.message;
  throw error;
}

// -- the document and its sender -----------------------------------------------------------------

function* writings(proof, given) {
  yield given;
  const stripped = strip(given);
  if (stripped.length < given.length) yield stripped;
  if (given.length > MAX_BYTES) return; // its base64 might be longer than a string of the browser can be
  if (proof.message.format === "manifest") {
    const parts = latin(stripped).split("~");
    if (parts.length === 4) {
      try {
        yield fromBase64url(parts[3], "the document");
      } catch {
        return;
      }
    }
  }
  const [protectedHeader, signature] = halves(proof.sender.signature, "..");
  if (proof.message.format === "jws" && signature !== null) {
    yield utf8(`${protectedHeader}.${toBase64url(given)}.${signature}`);
  }
}

function halves(source, by) {
  const place = source.indexOf(by);
  return place < 0 ? [source, null] : [source.slice(0, place), source.slice(place + by.length)];
}

function latin(bytes) {
  let found = "";
  for (let place = 0; place < bytes.length; place += 0x8000) {
    found += String.fromCharCode(...bytes.subarray(place, place + 0x8000));
  }
  return found;
}

async function documentContent(work) {
  const { verdict, proof, given } = work;
  if (given === null) {
    verdict.add("document", "document_missing", "not_proven", {}, true);
    return null;
  }
  for (const content of writings(proof, given)) {
    if (hex(await sha256(content)) === proof.message.sha256) {
      verdict.add("document", "document_same", "proven", {});
      return content;
    }
  }
  verdict.add("document", "document_other", "contradicted", { why: `SHA-256 ${hex(await sha256(given))}` });
  return null;
}

async function sender(work, acceptance, content) {
  const { proof, verdict } = work;
  const { signature, key, chain, revocation } = proof.sender;
  const event = acceptance.event;
  if (!["jws", "manifest"].includes(proof.message.format)) {
    if (signature || key || chain.length || revocation.length) {
      const why = "the file has a signature for a format that has none";
      verdict.add("sender", "sender_wrong", "contradicted", { why });
      return;
    }
    if (event.signer !== undefined && event.signer !== null) {
      const why = "the event of acceptance names a signer, and the file says that the format has none";
      verdict.add("sender", "sender_wrong", "contradicted", { why });
      return;
    }
    const named = { format: proof.message.format, endpoint: String(event.endpoint) };
    verdict.add("sender", "sender_no_signature", "not_proven", named);
    return;
  }
  if ((event.signer === undefined || event.signer === null) && !key) {
    verdict.add("sender", "sender_key_unnamed", "not_proven", {}, true);
    return;
  }
  const names = [String(event.from)];
  try {
    await signer(work, event.signer);
    if (content === null) {
      verdict.add("sender", "sender_needs_document", "not_proven", {}, true);
    } else {
      const from = writtenBy(await checkSignature(proof, content), event);
      verdict.add("sender", "sender_signed", "proven", { kid: await thumbprint(key) });
      if (from !== event.from) {
        names.push(String(from));
        const others = { named: names[1], from: names[0] };
        verdict.add("sender", "sender_other_name", "not_proven", others);
      }
    }
  } catch (error) {
    verdict.add("sender", "sender_wrong", "contradicted", { why: reason(error) });
    return;
  }
  const known = owner(work, await thumbprint(key), names);
  if (chain.length) verdict.add("certificate", "certificate_unchecked_here", "not_proven", {});
  else if (!known) verdict.add("certificate", "key_by_hub", "not_proven", { from: String(event.from) });
}

// An agency's code (protocol/agency.py).
const isCode = (code) => typeof code === "string" && /^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,33}[0-9A-Za-z])?$/.test(code);

// The ids of an agency's keys, undefined where it is not listed. A code in other letters is not another agency's.
const keysOf = ({ trust }, code) => trust.agencies.get(code) || trust.folded.get(code.toUpperCase());

// Whether the verifier's own list says whose the key is; then what the hub says of that does not count.
function owner(work, kid, names) {
  const listed = names.filter((name) => keysOf(work, name) !== undefined);
  for (const from of listed) {
    const own = keysOf(work, from).includes(kid);
    work.verdict.add("certificate", own ? "key_known" : "key_foreign", own ? "proven" : "contradicted", { from, kid });
  }
  return listed.length > 0;
}

// The file has just the key, the certificate and the answers that the sealed event names.
async function signer(work, named) {
  const { key, chain, revocation } = work.proof.sender;
  if (named === null || typeof named !== "object" || !key) {
    throw new Refused("the file's key and the event do not name the same signer");
  }
  if (keyText(json(key, "a public key in the file")) !== key) {
    throw new Refused("a public key in the file is not written as RFC 7638 has it");
  }
  if (named.kid !== (await thumbprint(key))) {
    throw new Refused("the file's key is not the one that the event of acceptance names");
  }
  const first = chain.length ? fromBase64(chain[0]) : null;
  if ((first === null ? undefined : hex(await sha256(first))) !== named.certificate) {
    throw new Refused("the file's certificate is not the one that the event of acceptance names");
  }
  if (first !== null && (await certificateKey(first)) !== key) {
    throw new Refused("the certificate is one for another key");
  }
  const answers = (named.revocation && named.revocation.answers) || [];
  const digests = await Promise.all(revocation.map(async (answer) => hex(await sha256(fromBase64(answer.der)))));
  if (!Array.isArray(answers) || answers.length !== digests.length || !digests.every((one, at) => one === answers[at])) {
    throw new Refused("the answers on revocation are not those that the event of acceptance names");
  }
}

// Whom the sender itself named as sending what it signed, under the id of the acceptance.
function writtenBy(payload, event) {
  const document = signedJson(text(payload, "the document"), "the document");
  if (document === null || typeof document !== "object" || !("from" in document && "id" in document)) {
    throw new Refused("what was signed is not a document");
  }
  if (typeof document.id !== "string" || !isCode(document.from)) {
    throw new Refused("what was signed does not name its sender as a document does");
  }
  if (![document.id, `${event.from}/${document.id}`].includes(event.id)) {
    throw new Refused("the document that was signed has another id than the acceptance names");
  }
  return document.from;
}

async function checkSignature(proof, content) {
  const { signature, index, path, key } = proof.sender;
  let jws;
  let payload = content;
  if (proof.message.format === "jws") {
    if (index || path.length) throw new Refused("a document that is signed alone has no place in a manifest");
    const raw = text(content, "the document");
    jws = parseJws(raw);
    const parts = raw.split(".");
    if (`${parts[0]}..${parts[2]}` !== signature) throw new Refused("the signature in the file is not the document's");
    if (typeof jws.header.typ === "string" && jws.header.typ.startsWith(RESERVED_TYPES)) {
      throw new Refused("what was signed is not a document: it is a JWS of another type");
    }
    payload = jws.payload;
  } else {
    jws = parseJws(signature);
    if (jws.header.typ !== MANIFEST_TYPE || signature.length > 8192) throw new Refused("it is not a manifest's signature");
    const { root, size } = members(jws, "the manifest");
    const expected = fromBase64url(root, "the manifest's root");
    if (expected.length !== 32 || !Number.isSafeInteger(size) || size < 1 || size > 1000 || path.length > 10) {
      throw new Refused("the manifest cannot be read");
    }
    if (!same(await rootFromPath(await leafHash(content), index, size, readPath(path)), expected)) {
      throw new Refused("the document is not the one that the manifest signs at this place");
    }
  }
  if (!(await verifies(key, jws.alg, jws.signature, jws.signed))) {
    throw new Refused("the signature was not made with that key over this document");
  }
  return payload;
}

// -- certificates: only the public key is taken out ----------------------------------------------

// One DER element at `place`: its tag, where its content begins and where it ends (X.690, section 8.1).
function element(der, place) {
  const first = der[place + 1];
  let start = place + 2;
  let length = first;
  if (first === undefined || first === 0x80 || first > 0x84) throw new Refused("the certificate cannot be read");
  if (first > 0x80) {
    length = 0;
    for (let left = first & 0x7f; left > 0; left -= 1) {
      length = length * 256 + der[start];
      start += 1;
    }
  }
  if (!(start + length <= der.length)) throw new Refused("the certificate cannot be read");
  return { tag: der[place], place, start, end: start + length };
}

// SubjectPublicKeyInfo: the element after version, serial number, algorithm, issuer, validity and subject (RFC 5280).
function subjectPublicKeyInfo(der) {
  const whole = element(der, 0);
  const signed = element(der, whole.start);
  if (whole.tag !== 0x30 || signed.tag !== 0x30 || whole.end !== der.length) {
    throw new Refused("the certificate cannot be read");
  }
  let one = element(der, signed.start);
  if (one.tag === 0xa0) one = element(der, one.end);
  for (let left = 5; left > 0; left -= 1) one = element(der, one.end);
  if (one.tag !== 0x30 || one.end > signed.end) throw new Refused("the certificate cannot be read");
  return der.subarray(one.place, one.end);
}

async function certificateKey(der) {
  const info = subjectPublicKeyInfo(der);
  const kinds = [
    { name: "ECDSA", namedCurve: "P-256" },
    { name: "Ed25519" },
    { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
  ];
  let missing = false;
  for (const kind of kinds) {
    try {
      const key = await crypto.subtle.importKey("spki", info, kind, true, ["verify"]);
      return keyText(await crypto.subtle.exportKey("jwk", key));
    } catch (error) {
      // It is of another kind; or the browser does not have this one, and cannot say what it is.
      if (error.name === "NotSupportedError") missing = true;
    }
  }
  if (missing) throw new MissingAlgorithm("Ed25519");
  throw new Refused("the certificate has a key of a kind that is not known");
}

// -- recipients and events -----------------------------------------------------------------------

function named(codes) {
  const more = codes.length > SHOWN ? `, … (+${codes.length - SHOWN})` : "";
  return codes.slice(0, SHOWN).join(", ") + more;
}

// By code points, as Python sorts.
function byCodePoint(a, b) {
  const [left, right] = [Array.from(a), Array.from(b)];
  for (let place = 0; place < Math.min(left.length, right.length); place += 1) {
    const difference = left[place].codePointAt(0) - right[place].codePointAt(0);
    if (difference) return difference;
  }
  return left.length - right.length;
}

async function recipients(work, acceptance) {
  const listed = work.proof.recipients;
  const event = acceptance.event;
  const count = String(event.recipients);
  if (listed === null) {
    work.verdict.add("recipients", "recipients_withheld", "not_proven", { count });
    return;
  }
  const lines = [...listed].sort(byCodePoint).map((code) => `${code}\n`);
  if (hex(await sha256(utf8(lines.join("")))) !== event.recipients_sha256 || listed.length !== event.recipients) {
    work.verdict.add("recipients", "recipients_other", "contradicted", {});
  } else {
    work.verdict.add("recipients", "recipients_listed", "proven", { count, recipients: named(listed) });
  }
}

async function events(work) {
  const { proof, verdict, words } = work;
  const found = [];
  const ended = new Set();
  const owned = [];
  for (const [place, evidence] of proof.events.entries()) {
    const number = place + 2;
    let event;
    let agencies;
    try {
      event = await readEvent(work, number, evidence);
      if (["accepted", "rejected"].includes(event.event.event)) throw new Refused("a message is accepted once");
      agencies = event.event.recipients === undefined ? [] : event.event.recipients;
      if (!Array.isArray(agencies) || !agencies.every((code) => typeof code === "string")) {
        throw new Refused("the event's recipients cannot be read");
      }
      // What gets past a list of agencies' keys by looking like a code in it.
      if (work.trust.agencies.size && !agencies.every(isCode)) {
        throw new Refused("the event names a recipient by what is no agency's code");
      }
      if (!agencies.length && Object.hasOwn(words.DEEDS, event.event.event)) {
        throw new Refused("the event does not say for which recipient it is");
      }
      if (proof.recipients !== null && !agencies.every((code) => proof.recipients.includes(code))) {
        throw new Refused("the event names recipients that the message does not have");
      }
    } catch (error) {
      verdict.add("events", "event_wrong", "contradicted", { number: String(number), why: reason(error) });
      continue;
    }
    told(verdict, event, agencies, words);
    if ("beyond" in event.event) await beyond(work, event);
    if (ENDS.includes(event.event.event)) agencies.forEach((code) => ended.add(code));
    if (Object.hasOwn(words.DEEDS, event.event.event)) {
      owned.push(...(await acknowledged(work, event, evidence, agencies)));
    } else if (evidence.acknowledgement !== null) {
      const why = "the file has an acknowledgement for an event that is none";
      verdict.add("events", "event_wrong", "contradicted", { number: String(number), why });
    }
    found.push(event);
  }
  const own = owned.filter((one) => one).length;
  if (own) verdict.add("events", "recipient_keys_known", "proven", { count: String(own) });
  const others = owned.length - own;
  if (others) verdict.add("events", "recipient_keys_by_hub", "not_proven", { count: String(others) });
  const waiting = (proof.recipients || []).filter((code) => !ended.has(code));
  if (waiting.length) {
    verdict.add("events", "open", "not_proven", { count: String(waiting.length), recipients: named(waiting) });
  }
  return found;
}

function told(verdict, event, agencies, words) {
  const { event: kind, endpoint, code, reason: why, attachment, pdf } = event.event;
  let whom = (endpoint === undefined ? "" : String(endpoint)) + (agencies.length ? ` (${named(agencies)})` : "");
  const given = [code, why].filter((one) => one).join(" ");
  let more = given ? [` Lý do: ${given}.`, ` Reason: ${given}.`] : "";
  const isObject = (one) => one !== null && typeof one === "object" && !Array.isArray(one);
  if (isObject(attachment) && isObject(pdf)) {
    whom = `«${attachment.name}»`;
    const found = String(pdf.verdict);
    const [vi, en] = Object.hasOwn(words.PDF, found) ? words.PDF[found] : [found, found];
    more = [` Máy chủ thấy: ${vi}.`, ` What the hub found: ${en}.`];
  }
  if (!Object.hasOwn(words.KINDS, kind)) {
    // Its name is the hub's own text, which could be the words of another kind.
    verdict.add("events", "event_unknown", "not_proven", { number: String(event.number), kind });
    return;
  }
  const steps = [[kind, event.at, more]];
  if (event.event.handed_over_at !== undefined) {
    steps.unshift(["handed_over", moment(event.event.handed_over_at), ""]);
  }
  for (const [step, at, rest] of steps) {
    verdict.add("events", "event", "proven", { kind: words.KINDS[step], whom: whom || "–", at: shown(at), more: rest });
  }
}

// The receipt that another hub gave for the same message.
async function beyond(work, event) {
  try {
    const receipt = RECEIPT(event.event.beyond);
    const { kid } = parseJws(receipt.seal);
    if (!work.trust.hubKeys.has(kid)) {
      work.verdict.add("events", "beyond_untrusted", "not_proven", { kid });
      return;
    }
    const { event: found, sealed } = await readReceipt(work.trust, receipt);
    if ([work.madeBy, event.kid].includes(kid)) throw new Refused("it is sealed with a key of this hub");
    const at = moment(found.at);
    if (found.event !== "accepted" || at === null) throw new Refused("it is not one of acceptance");
    if (found.sha256 !== work.proof.message.sha256) throw new Refused("it is about another message");
    work.verdict.add("events", "beyond", "proven", { hub: String(sealed.hub), at: shown(at), kid });
  } catch (error) {
    work.verdict.add("events", "beyond_wrong", "contradicted", { number: String(event.number), why: reason(error) });
  }
}

// Whether the verifier itself knows the key by which the recipient signed; nothing when it did not sign.
async function acknowledged(work, event, evidence, agencies) {
  const endpoint = String(event.event.endpoint);
  const what = work.words.DEEDS[event.event.event];
  const given = evidence.acknowledgement;
  if (given === null) {
    const code = "acknowledgement" in event.event ? "recipient_missing" : "recipient_unsigned";
    work.verdict.add("events", code, "not_proven", { endpoint, what });
    return [];
  }
  try {
    if (hex(await sha256(utf8(given.jws))) !== event.event.acknowledgement) {
      throw new Refused("it is not the one that the event names");
    }
    if (keyText(json(given.key, "a public key in the file")) !== given.key) {
      throw new Refused("a public key in the file is not written as RFC 7638 has it");
    }
    const { at, refused } = await readAcknowledgement(given, work.proof.message);
    if (refused !== (event.event.event === "refused")) {
      throw new Refused("the recipient signed something else than the event says");
    }
    const kid = await thumbprint(given.key);
    work.verdict.add("events", "recipient_signed", "proven", { endpoint, what, at: shown(at), kid });
    const foreign = agencies.filter((code) => keysOf(work, code) !== undefined && !keysOf(work, code).includes(kid));
    if (foreign.length) {
      const values = { endpoint, kid, agencies: named(foreign) };
      work.verdict.add("events", "recipient_key_foreign", "contradicted", values);
      return [];
    }
    return [agencies.every((code) => keysOf(work, code) !== undefined)];
  } catch (error) {
    work.verdict.add("events", "recipient_wrong", "contradicted", { endpoint, why: reason(error) });
    return [];
  }
}

async function readAcknowledgement(given, message) {
  const jws = parseJws(given.jws);
  const stated = members(jws, "the acknowledgement");
  const { entries = [], refused = [], root = "" } = stated;
  const at = moment(stated.at);
  if (
    jws.header.typ !== ACKNOWLEDGEMENT_TYPE ||
    at === null ||
    Object.keys(stated).some((name) => !["at", "entries", "root", "refused"].includes(name)) ||
    !Array.isArray(entries) ||
    !entries.every((seq) => Number.isSafeInteger(seq)) ||
    !Array.isArray(refused) ||
    !refused.every((one) => one !== null && typeof one === "object" && Number.isSafeInteger(one.seq)) ||
    new Set([...entries, ...refused.map((one) => one.seq)]).size < entries.length + refused.length ||
    entries.length + refused.length === 0 ||
    entries.length > 0 !== (root !== "")
  ) {
    throw new Refused("the recipient's acknowledgement cannot be read");
  }
  if (!(await verifies(given.key, jws.alg, jws.signature, jws.signed))) {
    throw new Refused("the recipient's signature on the acknowledgement is wrong");
  }
  if (given.size === 0) {
    if (!refused.some((one) => one.message === message.id && one.sha256 === message.sha256)) {
      throw new Refused("the recipient's signature refuses other documents, not this one");
    }
    return { at, refused: true };
  }
  if (entries.length !== given.size) throw new Refused("the acknowledgement's path cannot be one of its documents");
  const leaf = await leafHash(utf8(`${message.id} ${message.sha256}`));
  const reached = await rootFromPath(leaf, given.index, given.size, readPath(given.path));
  if (!same(reached, fromBase64url(root, "the acknowledgement's root"))) {
    throw new Refused("the recipient's signature does not cover this document");
  }
  return { at, refused: false };
}

// -- the log, its witnesses, promises ------------------------------------------------------------

// A signed note (c2sp.org/signed-note): its text and its signature lines.
function readNote(source) {
  const gap = source.lastIndexOf("\n\n");
  if (source.length > 65536 || /[\x00-\x09\x0b-\x1f]/.test(source) || gap < 0 || !source.endsWith("\n") || gap + 2 >= source.length) {
    throw new Refused("the file's checkpoint cannot be read");
  }
  const lines = source.slice(gap + 2, -1).split("\n");
  const signatures = lines.map((line) => {
    const [name, encoded] = line.startsWith("— ") ? halves(line.slice(2), " ") : ["", null];
    const data = encoded === null ? new Uint8Array() : fromBase64(encoded, "a signature on the checkpoint");
    if (!name || data.length <= 4) throw new Refused("a signature line of the checkpoint cannot be read");
    return { name, id: hex(data.subarray(0, 4)), signature: data.subarray(4) };
  });
  return { text: source.slice(0, gap + 1), signatures };
}

async function readVerifier(vkey) {
  const [name, rest] = halves(String(vkey).trim(), "+");
  const [id, encoded] = halves(rest === null ? "" : rest, "+");
  const data = encoded === null ? new Uint8Array() : fromBase64(encoded, `the verifier key ${vkey}`);
  if (!name || data.length !== 33 || ![1, 4].includes(data[0])) throw new Refused(`${vkey} is not a verifier key`);
  const expected = (await sha256(join(utf8(`${name}\n`), data))).subarray(0, 4);
  if (hex(expected) !== id.toLowerCase()) throw new Refused(`the verifier key of ${name} was altered`);
  const key = JSON.stringify({ crv: "Ed25519", kty: "OKP", x: toBase64url(data.subarray(1)) });
  return { name, id: id.toLowerCase(), kind: data[0], key };
}

// The time that a cosignature states (c2sp.org/tlog-cosignature), null for a plain signature.
async function checkSigned(verifier, source, signature) {
  let at = null;
  let signed = utf8(source);
  if (verifier.kind === 4) {
    if (signature.length !== 72) throw new Refused(`the cosignature of ${verifier.name} has the wrong length`);
    const seconds = new DataView(signature.buffer, signature.byteOffset, 8).getBigUint64(0);
    if (seconds > 253402300799n) throw new Refused(`the cosignature of ${verifier.name} states no possible time`);
    at = Number(seconds) * 1000;
    signed = utf8(`cosignature/v1\ntime ${seconds}\n${source}`);
    signature = signature.subarray(8);
  }
  if (signature.length !== 64 || !(await verifies(verifier.key, "EdDSA", signature, signed))) {
    throw new Refused(`the signature of ${verifier.name} is wrong`);
  }
  return at;
}

async function openCheckpoint(source, log, witnesses) {
  const note = readNote(source);
  if (note.signatures.length > 64) throw new Refused("the note has more than 64 signatures");
  const found = new Map();
  for (const { name, id, signature } of note.signatures) {
    const verifier = [log, ...witnesses].find((one) => one.name === name && one.id === id);
    if (verifier !== undefined) found.set(verifier, await checkSigned(verifier, note.text, signature));
  }
  const lines = note.text.split("\n");
  const [origin, size, encoded] = lines;
  const root = encoded === undefined ? new Uint8Array() : fromBase64(encoded, "the checkpoint's root");
  if (!origin || !/^(0|[1-9][0-9]{0,18})$/.test(size) || root.length !== 32 || lines.slice(3, -1).some((line) => !line)) {
    throw new Refused("the note is not a checkpoint");
  }
  if (!found.has(log)) throw new Refused(`the checkpoint is not signed by ${log.name}, the log that is trusted`);
  if (origin !== log.name) throw new Refused(`the checkpoint is one of ${origin}, not of ${log.name}`);
  found.delete(log);
  return { origin, size: Number(size), root, signed: [...found].map(([verifier, at]) => ({ name: verifier.name, at })) };
}

async function checkLog(work, found, made) {
  const { proof, verdict, trust } = work;
  const opened = await checkpoint(work, found);
  const logged = found.filter((event) => event.logged !== null);
  // A checkpoint says nothing of what is not in its log: it counts when the first event, on which all rest, is there.
  const covered = found[0].logged !== null;
  let outside = [];
  if (opened !== null && (await included(logged, opened, found.length, work))) {
    outside = witnesses(logged, opened.signed, covered ? work : { ...work, verdict: new Verdict(work.words) });
    if (covered && proof.timestamps.length) {
      verdict.add("time", "time_stamp_unchecked_here", "not_proven", { count: String(proof.timestamps.length) });
    }
  }
  if (trust.quorum && (opened === null || !covered)) {
    verdict.add("witnesses", "witnesses_missing", "not_proven", { quorum: String(trust.quorum), count: "0" }, true);
  }
  if (!outside.length || !covered) verdict.add("time", "time_by_hub", "not_proven", {});
  promises(work, found.filter((event) => event.logged === null), outside, made);
}

async function checkpoint(work, found) {
  const { proof, verdict, trust } = work;
  if (proof.checkpoint === null) {
    if (found.some((event) => event.logged !== null)) {
      verdict.add("log", "log_checkpoint_wrong", "contradicted", { why: "the file has no checkpoint" });
    }
    return null;
  }
  if (!trust.logs.length) {
    verdict.add("log", "log_no_key", "not_proven", {});
    return null;
  }
  const complaints = new Set();
  for (const log of trust.logs) {
    try {
      return await openCheckpoint(proof.checkpoint, log, trust.witnesses);
    } catch (error) {
      complaints.add(reason(error));
    }
  }
  verdict.add("log", "log_checkpoint_wrong", "contradicted", { why: [...complaints].join("; ") });
  return null;
}

// Whether all are where the file says. A hub that lost its log begins another, and logs again there what its old seals
// promise to the old one: that counts where the verifier trusts both, and is said.
async function included(logged, opened, all, { trust, verdict }) {
  const known = trust.logs.map((one) => one.name);
  for (const event of logged) {
    try {
      if (event.log !== null && event.log !== opened.origin && !known.includes(event.log)) {
        throw new Refused(`its seal promises another log, ${event.log}, which is not among the trusted`);
      }
      if (event.logged.index >= opened.size) {
        throw new Refused(
          `the log has ${opened.size} entries at the checkpoint, and the event is to be entry ${event.logged.index}: ` +
            "the log shrank, or the checkpoint is older than the event",
        );
      }
      const leaf = await leafHash(event.leaf);
      const reached = await rootFromPath(leaf, event.logged.index, opened.size, readPath(event.logged.path));
      if (!same(reached, opened.root)) {
        throw new Refused("the entry is not in the log at that place: its hash does not lead to the checkpoint's root");
      }
    } catch (error) {
      verdict.add("log", "log_wrong", "contradicted", { number: String(event.number), why: reason(error) });
      return false;
    }
  }
  if (logged.length) {
    const values = { count: String(logged.length), all: String(all), log: opened.origin, size: String(opened.size) };
    verdict.add("log", logged.length === all ? "log_recorded" : "log_partly", "proven", values);
  }
  const moved = logged.map((event) => event.log).filter((log) => log !== null && log !== opened.origin);
  if (moved.length) {
    const values = { count: String(moved.length), old: [...new Set(moved)].join(", "), log: opened.origin };
    verdict.add("log", "log_begun_anew", "not_proven", values);
  }
  return true;
}

function plausible(name, at, logged, work) {
  if (at > work.now + SKEW) {
    const values = { name, at: shown(at), now: shown(work.now) };
    work.verdict.add("witnesses", "witness_ahead", "contradicted", values);
    return false;
  }
  for (const event of logged) {
    const latest = Math.max(event.at, event.sealedAt);
    if (latest > at + SKEW) {
      const values = { name, at: shown(at), number: String(event.number), event: shown(latest) };
      work.verdict.add("witnesses", "witness_early", "contradicted", values);
      return false;
    }
  }
  return true;
}

function witnesses(logged, signed, work) {
  const { quorum } = work.trust;
  const seen = signed.filter((one) => one.at !== null && plausible(one.name, one.at, logged, work));
  if (seen.length < quorum) {
    const values = { quorum: String(quorum), count: String(seen.length) };
    work.verdict.add("witnesses", "witnesses_missing", "not_proven", values, true);
  } else if (!seen.length) {
    work.verdict.add("witnesses", "witnesses_none", "not_proven", {});
  } else {
    work.verdict.add("witnesses", "witnesses_met", "proven", {
      count: String(seen.length),
      names: seen.map((one) => one.name).sort(byCodePoint).join(", "),
      first: shown(Math.min(...seen.map((one) => one.at))),
    });
  }
  return seen.map((one) => one.at);
}

function promises(work, unlogged, outside, made) {
  const { verdict, proof } = work;
  const waiting = unlogged.filter((event) => event.until !== null).sort((a, b) => a.until - b.until);
  const never = unlogged.length - waiting.length;
  if (never) {
    verdict.add("log", "log_never_promised", "not_proven", { count: String(never) }, work.trust.quorum > 0);
  }
  if (!waiting.length) return;
  const { until, number } = waiting[0];
  const last = waiting[waiting.length - 1].until;
  if (made > until + SLACK) {
    const later = outside.length ? Math.max(...outside) : null;
    const known =
      later !== null && later > until + SLACK
        ? [
            ` Người ngoài xác nhận điểm kiểm tra trong tệp là của lúc ${shown(later)}, sau hạn đó.`,
            ` Outsiders confirm that the file's checkpoint is one of ${shown(later)}, after that time.`,
          ]
        : "";
    const values = { number: String(number), until: shown(until), made: shown(made), known };
    verdict.add("log", "log_promise_broken", "contradicted", values);
    return;
  }
  const longest = work.trust.promiseSeconds * 1000;
  const far = waiting.filter((event) => event.until > Math.min(event.sealedAt, work.now) + longest).length;
  if (far) {
    const limit = { count: String(far), until: shown(last), days: String(Number((longest / DAY).toPrecision(6))) };
    verdict.add("log", "log_promise_far", "not_proven", limit, true);
    return;
  }
  const values = { count: String(waiting.length), until: shown(last), message: proof.message.id };
  if (work.now > until + SLACK) {
    verdict.add("log", "log_promise_old", "not_proven", { made: shown(made), ...values }, true);
  } else {
    verdict.add("log", "log_promised", "not_proven", values);
  }
}

// -- trust and verdict ---------------------------------------------------------------------------

// A list of texts, which may be missing.
function textsOf(value) {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.every((one) => typeof one === "string")) return value;
  throw new Refused("a list in the list of the trusted cannot be read");
}

// Whom to trust, from the text of a `trust.json` (protocol/proof_trust.py). Throws an Error that says what is wrong.
async function readTrust(source) {
  const file = json(source, "the list of the trusted");
  const lists = ["hub_keys", "logs", "witnesses", "anchors", "timestamp_roots", "agencies"];
  const known = ["format", "quorum", "promise_seconds", ...lists];
  if (file === null || typeof file !== "object" || file.format !== TRUST_FORMAT || !Array.isArray(file.hub_keys)) {
    throw new Refused("this is not a list of the trusted (lienthong-trust+1)");
  }
  const unknown = Object.keys(file).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Refused(`the list of the trusted has an unknown member ${unknown.slice(0, 80)}`);
  const hubKeys = new Map();
  for (const jwk of file.hub_keys) {
    const written = keyText(jwk);
    hubKeys.set(await thumbprint(written), written);
  }
  if (!hubKeys.size) throw new Refused("no key of the hub is trusted: without one nothing can be verified");
  const logs = await Promise.all(textsOf(file.logs).map(readVerifier));
  const trusted = await Promise.all(textsOf(file.witnesses).map(readVerifier));
  [file.anchors, file.timestamp_roots].forEach(textsOf);
  const quorum = file.quorum === undefined ? 0 : file.quorum;
  const keys = [...new Set(trusted.map((one) => one.key))];
  if (
    logs.some((one) => one.kind !== 1) ||
    trusted.some((one) => one.kind !== 4) ||
    keys.length < trusted.length ||
    [...logs.map((one) => one.key), ...hubKeys.values()].some((key) => keys.includes(key)) ||
    !Number.isSafeInteger(quorum) ||
    quorum < 0 ||
    quorum > trusted.length
  ) {
    throw new Refused("the logs, the witnesses or the quorum of the list of the trusted cannot be used");
  }
  const { agencies = {}, promise_seconds: promiseSeconds = LONGEST_PROMISE_SECONDS } = file;
  if (!Number.isSafeInteger(promiseSeconds) || promiseSeconds < 0 || promiseSeconds > 315360000) {
    throw new Refused("the longest promise in the list of the trusted is no number of seconds");
  }
  if (agencies === null || typeof agencies !== "object" || Array.isArray(agencies)) {
    throw new Refused("the keys of agencies in the list of the trusted cannot be read");
  }
  for (const [code, kids] of Object.entries(agencies)) {
    if (!/^[!-~]+$/.test(code) || !textsOf(kids).length || !kids.every((kid) => /^[A-Za-z0-9_-]{43}$/.test(kid))) {
      throw new Refused(`the list of the trusted names no ids of keys for the agency ${code.slice(0, 80)}`);
    }
  }
  const folded = new Map(Object.entries(agencies).map(([code, kids]) => [code.toUpperCase(), kids]));
  const listed = new Map(Object.entries(agencies));
  return { hubKeys, logs, witnesses: trusted, quorum, agencies: listed, folded, promiseSeconds };
}

class Verdict {
  constructor(words) {
    this.words = words;
    this.findings = [];
    this.limits = [];
  }

  add(step, code, status, values, required = false) {
    const [vi, en] = fill(this.words.WORDS[code], values);
    this.findings.push({ step, code, status, required: required || status !== "not_proven", vi, en });
  }

  limit(code, values = {}) {
    const [vi, en] = fill(this.words.LIMITS[code], values);
    this.limits.push({ vi, en });
  }

  get failed() {
    const fails = (one) => one.status === "contradicted" || (one.required && one.status === "not_proven");
    return this.findings.find(fails) || null;
  }

  get verified() {
    return this.findings.length > 0 && this.failed === null;
  }

  members() {
    const failed = this.failed;
    return {
      verified: this.verified,
      failed: failed === null ? null : failed.step,
      findings: this.findings,
      limits: this.limits,
    };
  }
}

function fill(sentences, values) {
  return sentences.map((sentence, place) =>
    sentence.replace(/\{(\w+)\}/g, (_, name) =>
      printable(String(Array.isArray(values[name]) ? values[name][place] : values[name])),
    ),
  );
}

// What others chose (names, reasons) may not begin a line of its own or turn the direction of a sentence round.
function printable(value) {
  return value.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    const short = { "\t": "\\t", "\n": "\\n", "\r": "\\r" }[character];
    if (short !== undefined) return short;
    const code = character.codePointAt(0);
    if (code < 0x100) return "\\x" + code.toString(16).padStart(2, "0");
    if (code < 0x10000) return "\\u" + code.toString(16).padStart(4, "0");
    return "\\U" + code.toString(16).padStart(8, "0");
  });
}

// Verifies. `bytes` is the file, `given` the document's bytes or null, `now` milliseconds since 1970.
async function verifyProof(bytes, given, trust, now, words) {
  const verdict = new Verdict(words);
  try {
    await steps(bytes, given, trust, now, words, verdict);
  } catch (error) {
    if (!(error instanceof MissingAlgorithm)) throw error;
    verdict.add("file", "browser_too_old", "not_proven", { alg: error.message }, true);
  }
  return verdict.members();
}

async function steps(bytes, given, trust, now, words, verdict) {
  let proof;
  let made;
  try {
    proof = readProof(bytes);
  } catch (error) {
    verdict.add("file", "file_unreadable", "contradicted", { why: reason(error) });
    return;
  }
  try {
    made = await verifyFile(proof, trust);
  } catch (error) {
    verdict.add("file", "file_altered", "contradicted", { why: reason(error) });
    return;
  }
  verdict.add("file", "file_intact", "proven", { at: shown(made) });
  const work = { proof, given, trust, now, words, verdict, madeBy: parseJws(proof.signature).kid };
  const acceptance = await accepted(work);
  if (acceptance !== null) {
    if (now < made - SKEW) {
      verdict.add("clock", "clock_wrong", "contradicted", { now: shown(now), at: shown(made) });
    }
    const content = await documentContent(work);
    await sender(work, acceptance, content);
    await recipients(work, acceptance);
    await checkLog(work, [acceptance, ...(await events(work))], made);
  }
  for (const limit of ["read", "content", "attachments", "trust"]) verdict.limit(limit);
  verdict.limit("later", { made: shown(made) });
}

// -- the page ------------------------------------------------------------------------------------

const element_ = (name, attributes, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const both = ([vi, en]) => [element_("span", { lang: "vi" }, vi), element_("span", { lang: "en", class: "en" }, en)];

// What is said to the user instead of a verdict, in both languages.
class Complaint extends Error {
  constructor(vi, en) {
    super(en);
    this.sentences = [vi, en];
  }
}

async function contents(id) {
  const [file] = document.getElementById(id).files;
  if (file === undefined) return null;
  if (file.size > MAX_CHOSEN) {
    throw new Complaint(
      `Không kiểm tra được: tệp ${file.name} lớn hơn ${MAX_CHOSEN >> 20} MiB, quá lớn đối với trang này. Nếu đúng là tệp cần ` +
        "kiểm tra, hãy dùng lệnh lienthong verify.",
      `It could not be verified: the file ${file.name} is larger than ${MAX_CHOSEN >> 20} MiB, too large for this page. If it is ` +
        "the right one, use the command lienthong verify.",
    );
  }
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Complaint(
      `Không kiểm tra được: không đọc được tệp ${file.name}. Có thể tệp đã bị xóa hoặc thay đổi sau khi chọn: hãy chọn lại.`,
      `It could not be verified: the file ${file.name} cannot be read. Perhaps it was deleted or changed after you chose it: ` +
        "choose it again.",
    );
  }
}

function show(found, words, digest) {
  const verdict = found.verified ? words.VERDICTS.verified : words.VERDICTS.failed;
  const steps_ = found.failed === null ? "" : words.STEPS[found.failed];
  const result = element_("section", { class: found.verified ? "right" : "wrong" });
  result.append(element_("h2", {}, ...both(fill(verdict, { step: steps_ }))));
  const list = element_("ol", {});
  for (const one of found.findings) {
    const status = words.STATUSES[one.status].map((word, place) => `[${word}] ${words.STEPS[one.step][place]}: `);
    const item = element_("li", { class: one.status });
    item.append(...both([status[0] + one.vi, status[1] + one.en]));
    list.append(item);
  }
  result.append(list);
  if (found.limits.length) {
    result.append(element_("h3", {}, ...both(words.VERDICTS.does_not)));
    const limits = element_("ul", {});
    for (const { vi, en } of found.limits) limits.append(element_("li", {}, ...both([vi, en])));
    result.append(limits);
  }
  const trusted = [
    `Danh sách tin cậy đã dùng có SHA-256 ${digest}: hãy đối chiếu với bản nhận được qua đường khác.`,
    `The list of the trusted has the SHA-256 ${digest}: compare it with what came to you by another way.`,
  ];
  result.append(element_("p", {}, ...both(trusted)));
  return result;
}

// What the user asks for last. A verdict on files that were chosen before must not stand beside the names of others.
let asked = 0;

// Shows one element, and brings the user there: whoever listens to the page hears its heading, not all of it at once.
function present(made, heading) {
  document.getElementById("busy").replaceChildren();
  document.getElementById("result").replaceChildren(made);
  heading.setAttribute("tabindex", "-1");
  heading.focus();
}

function clear() {
  asked += 1;
  document.getElementById("busy").replaceChildren();
  document.getElementById("result").replaceChildren();
  return asked;
}

async function verdictOf(words) {
  if (!hasCryptography()) {
    throw new Complaint(
      "Không kiểm tra được: trình duyệt không cho trang này dùng các phép mật mã (xem ở đầu trang).",
      "It could not be verified: the browser does not let this page use its cryptography (see the top of the page).",
    );
  }
  const [proof, given, trusted] = [await contents("proof"), await contents("document"), await contents("trust")];
  if (proof === null || trusted === null) {
    throw new Complaint("Hãy chọn tệp bằng chứng và danh sách tin cậy.", "Choose the proof and the list of the trusted.");
  }
  const trust = await readTrust(text(trusted, "the list of the trusted"));
  return show(await verifyProof(proof, given, trust, Date.now(), words), words, hex(await sha256(trusted)));
}

async function submitted(words) {
  const mine = clear();
  document.getElementById("busy").replaceChildren(...both(["Đang kiểm tra…", "Verifying…"]));
  let made;
  try {
    made = await verdictOf(words);
  } catch (error) {
    const { sentences = [`Không kiểm tra được: ${error.message}`, `It could not be verified: ${error.message}`] } = error;
    made = element_("p", { class: "wrong" }, ...both(sentences.map(printable)));
  }
  if (mine === asked) present(made, made.querySelector("h2") || made);
}

const hasCryptography = () => globalThis.crypto !== undefined && crypto.subtle !== undefined;

if (typeof document !== "undefined") {
  const words = JSON.parse(document.getElementById("words").textContent);
  if (!hasCryptography()) document.getElementById("no-crypto").hidden = false;
  const form = document.getElementById("verify");
  form.addEventListener("change", clear);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submitted(words);
  });
}

if (typeof module !== "undefined") {
  module.exports = { readTrust, verifyProof, subjectPublicKeyInfo, Refused };
}
