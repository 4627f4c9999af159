// The playground: a form whose answer is written while it comes. What was said before goes along with each question.

export function start(root, { request, settle }) {
  const form = root.querySelector("#model-ask");
  if (!form) return null;
  const talk = root.querySelector("#model-talk"), tried = root.querySelector("#model-tried"), stop = root.querySelector("#model-stop");
  const text = form.elements.text, asks = form.querySelector("button[type=submit]");
  let said = [], under = null;

  function line(role, content) {
    const made = document.createElement("p");
    made.className = `said ${role}`;
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = role === "user" ? "You" : "Model";
    const words = document.createElement("bdi");
    words.textContent = content;
    made.append(who, words);
    talk.append(made);
    talk.scrollTop = talk.scrollHeight;
    return words;
  }

  function note(content) {
    const made = document.createElement("p");
    made.className = "trouble";
    made.textContent = content;
    tried.replaceChildren(made);
  }

  function piece(data, words) {
    const chunk = JSON.parse(data);
    words.textContent += chunk.text || chunk.refusal || "";
    for (const call of chunk.tool_calls ?? []) words.textContent += call.name ? ` [${call.name}] ${call.arguments}` : call.arguments;
    if (chunk.usage) words.parentElement.dataset.tokens = `${chunk.usage.output_tokens} tokens`;
    talk.scrollTop = talk.scrollHeight;
  }

  async function ask() {
    const body = new URLSearchParams([...new FormData(form)]);
    body.set("talk", JSON.stringify(said));
    const question = text.value.trim();
    if (!question) return;
    under = new AbortController();
    asks.disabled = true;
    stop.hidden = false;
    form.setAttribute("aria-busy", "true");
    tried.replaceChildren();
    line("user", question);
    const words = line("assistant", "");
    text.value = "";
    try {
      const answer = await request(form.getAttribute("action"), { method: "POST", body, signal: under.signal });
      if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error?.fact ?? `That was refused (${answer.status}).`);
      await heard(answer, words);
    } catch (error) {
      if (error.name !== "AbortError") note(error.message);
    } finally {
      if (words.textContent) said.push({ role: "user", content: question }, { role: "assistant", content: words.textContent });
      else words.parentElement.remove();
      under = null;
      asks.disabled = false;
      stop.hidden = true;
      form.removeAttribute("aria-busy");
      if (root.isConnected) text.focus();
    }
  }

  async function heard(answer, words) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", over = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const name = /^event: (.*)$/m.exec(part)?.[1];
        const data = [...part.matchAll(/^data: (.*)$/gm)].map((found) => found[1]).join("\n");
        if (name === "progress") piece(data, words);
        if (name === "trouble") { over = true; const { fact, remedy } = JSON.parse(data); note([fact, remedy].filter(Boolean).join(". ")); }
        if (name === "done") { over = true; tried.innerHTML = JSON.parse(data).html; settle(tried); }
      }
    }
    if (!over) note("The answer broke off.");
  }

  const submit = (event) => { event.preventDefault(); if (!under) ask(); };
  const enter = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); } };
  form.addEventListener("submit", submit);
  text.addEventListener("keydown", enter);
  stop.addEventListener("click", () => under?.abort());
  root.querySelector("#model-clear").addEventListener("click", () => { under?.abort(); said = []; talk.replaceChildren(); tried.replaceChildren(); text.focus(); });
  return () => under?.abort();
}
