// The script of the page /verify, tried by Node against what the Python verifier says (test_verify_page.py).
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { test } = require("node:test");
const vm = require("node:vm");

const page = require(process.env.VERIFY_SCRIPT);
const { words, cases, flips, certificates, trusts, html } = JSON.parse(readFileSync(process.env.VERIFY_CASES, "utf8"));
const bytes = (encoded) => new Uint8Array(Buffer.from(encoded, "base64"));
const verify = async (one) =>
  page.verifyProof(
    bytes(one.proof),
    one.document === null ? null : bytes(one.document),
    await page.readTrust(one.trust),
    one.now,
    words,
  );

// Reasons (`why`) are each verifier's own; steps that only the command does are left out on both sides.
const EXPLAINED = new Set(Object.keys(words.WORDS).filter((code) => words.WORDS[code][0].includes("{why}")));
const shown = (finding) => {
  const { step, code, status, required, vi, en } = finding;
  return EXPLAINED.has(code) ? { step, code, status, required } : { step, code, status, required, vi, en };
};
const HERE = ["certificate_unchecked_here", "time_stamp_unchecked_here"];
const ONLY_THERE = ["certificate_no_anchors", "time_stamp_unchecked"];

for (const one of cases) {
  test(one.name, async () => {
    const found = await verify(one);
    const mine = found.findings.filter((finding) => !HERE.includes(finding.code)).map(shown);
    const theirs = one.expected.findings.filter((finding) => !ONLY_THERE.includes(finding.code)).map(shown);
    assert.deepEqual(mine, theirs);
    assert.equal(found.verified, one.expected.verified);
    assert.equal(found.failed, one.expected.failed);
    assert.deepEqual(found.limits, one.expected.limits);
    const told = found.findings.filter((finding) => HERE.includes(finding.code)).length;
    assert.equal(told, one.expected.findings.length - theirs.length);
  });
}

for (const one of flips) {
  test(`every byte of ${one.name}`, async () => {
    const file = bytes(one.proof);
    assert.equal((await verify(one)).verified, true);
    const trust = await page.readTrust(one.trust);
    const document = bytes(one.document);
    for (let place = 0; place < file.length; place += 1) {
      for (const other of [file[place] ^ 1, 0x20]) {
        if (other === file[place]) continue;
        const changed = file.slice();
        changed[place] = other;
        const found = await page.verifyProof(changed, document, trust, one.now, words);
        assert.equal(found.verified, false, `byte ${place} as ${other}`);
      }
    }
    const padded = new Uint8Array([0x0a, ...file, 0x0d, 0x0a]);
    assert.equal((await page.verifyProof(padded, document, trust, one.now, words)).verified, true);
  });
}

test("the public key is taken out of certificates", () => {
  for (const { der, spki } of certificates) {
    assert.equal(Buffer.from(page.subjectPublicKeyInfo(bytes(der))).toString("base64"), spki);
    const whole = bytes(der);
    for (let length = 0; length < whole.length; length += 7) {
      assert.throws(() => page.subjectPublicKeyInfo(whole.slice(0, length)), page.Refused);
    }
  }
});

test("lists of the trusted that cannot be are refused", async () => {
  for (const source of trusts) await assert.rejects(page.readTrust(source), page.Refused, source);
});

test("a browser without Ed25519 says so", async () => {
  const original = crypto.subtle.importKey;
  crypto.subtle.importKey = async function importKey(format, key, algorithm, ...rest) {
    if (algorithm.name === "Ed25519") throw new DOMException("unknown", "NotSupportedError");
    return original.call(this, format, key, algorithm, ...rest);
  };
  try {
    const found = await verify(cases.find((one) => one.expected.verified));
    assert.equal(found.verified, false);
    assert.deepEqual(found.findings.map((one) => one.code), ["browser_too_old"]);
    assert.match(found.findings[0].en, /does not have the algorithm Ed25519/);
    assert.match(found.findings[0].vi, /hãy dùng trình duyệt mới hơn/);
  } finally {
    crypto.subtle.importKey = original;
  }
});

// -- the page, in as much of a browser as it needs -------------------------------------------------

class Element {
  constructor(name) {
    this.name = name;
    this.attributes = {};
    this.children = [];
    this.listeners = {};
    this.hidden = true;
    this.filled = new Promise((resolve) => {
      this.fill = resolve;
    });
  }

  setAttribute(name, value) {
    this.attributes[name] = value;
  }

  append(...children) {
    this.children.push(...children);
  }

  replaceChildren(...children) {
    this.children = children;
    if (children.length) this.fill();
  }

  addEventListener(name, listener) {
    this.listeners[name] = listener;
  }

  querySelector() {
    return null;
  }

  focus() {
    this.focused = true;
  }

  get text() {
    return this.children.map((child) => (typeof child === "string" ? child : child.text)).join("\n");
  }
}

// Opens the page, chooses files and presses the button; the elements as they are then.
async function open(files, now, crypto) {
  const ids = [...html.matchAll(/ id="([\w-]+)"/g)].map((match) => match[1]);
  const elements = Object.fromEntries(ids.map((id) => [id, new Element(id)]));
  elements.words.textContent = html.match(/id="words">(.*?)<\/script>/s)[1];
  for (const id of ["proof", "document", "trust"]) {
    const data = files[id];
    elements[id].files = data === undefined ? [] : [{ arrayBuffer: async () => data.slice().buffer }];
  }
  const document = { getElementById: (id) => elements[id], createElement: (name) => new Element(name) };
  const clock = class extends Date {
    static now() {
      return now;
    }
  };
  const context = { document, crypto, TextEncoder, TextDecoder, atob, btoa, Date: clock, DOMException };
  vm.runInNewContext(html.match(/<script>(.*)<\/script>/s)[1], context);
  let prevented = false;
  elements.verify.listeners.submit({ preventDefault: () => (prevented = true) });
  assert.ok(prevented, "the form is not sent anywhere");
  await elements.result.filled;
  return elements;
}

const good = cases.find((one) => one.expected.verified);
const chosen = { proof: bytes(good.proof), document: bytes(good.document), trust: new Uint8Array(Buffer.from(good.trust)) };

test("the page shows what was found", async () => {
  const { result, "no-crypto": warning } = await open(chosen, good.now, crypto);
  assert.ok(warning.hidden);
  const [section] = result.children;
  assert.equal(section.attributes.class, "right");
  const shown_ = section.text;
  for (const { vi, en } of [...good.expected.findings, ...good.expected.limits]) {
    assert.ok(shown_.includes(vi) && shown_.includes(en), vi);
  }
  assert.ok(shown_.indexOf("KẾT LUẬN: bằng chứng đúng.") < shown_.indexOf("VERDICT: proven."));
  assert.match(shown_, /SHA-256 [0-9a-f]{64}/);
  const spans = section.children[1].children[0].children;
  assert.deepEqual(spans.map((span) => span.attributes.lang), ["vi", "en"]);
});

test("the page says what is wrong", async () => {
  const other = await open({ ...chosen, document: new Uint8Array([1]) }, good.now, crypto);
  assert.equal(other.result.children[0].attributes.class, "wrong");
  assert.ok(other.result.text.includes("KẾT LUẬN: KHÔNG được chứng minh. Bước đầu tiên không đạt: Văn bản."));
  const none = await open({ ...chosen, document: undefined }, good.now, crypto);
  assert.ok(none.result.text.includes("Chưa có văn bản để đối chiếu"));
  const untrusting = await open({ proof: chosen.proof }, good.now, crypto);
  assert.ok(untrusting.result.text.includes("Hãy chọn tệp bằng chứng và danh sách tin cậy."));
  const broken = await open({ ...chosen, trust: new Uint8Array([0x7b]) }, good.now, crypto);
  assert.ok(broken.result.text.includes("Không kiểm tra được: the list of the trusted is not JSON"));
});

test("the page says where cryptography is missing", async () => {
  const { result, "no-crypto": warning } = await open(chosen, good.now, {});
  assert.equal(warning.hidden, false);
  assert.match(result.text, /It could not be verified/);
});
