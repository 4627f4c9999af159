// Shows an answer as it is made. Without this, the form asks for the page with the whole answer.
const talk = document.getElementById("talk");
const form = document.getElementById("ask");
const question = document.getElementById("question");
const count = document.getElementById("count");
const turns = [...talk.querySelectorAll("li")].map((item) => ({
  who: item.className,
  text: item.querySelector("p").textContent,
}));
let busy = false;

function add(who, text) {
  const item = document.createElement("li");
  item.className = who;
  const name = document.createElement("span");
  name.className = "unseen";
  name.textContent = who === "shopper" ? "You: " : "The assistant: ";
  const words = document.createElement("p");
  words.textContent = text;
  item.append(name, words);
  talk.append(item);
  return words;
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const [kind, data] = block.split("\n");
      yield [kind.slice(7), JSON.parse(data.slice(6))];
    }
  }
}

async function ask(text) {
  busy = true;
  count.textContent = "";
  turns.push({ who: "shopper", text });
  add("shopper", text);
  // Who listens hears the answer when it is whole, not word by word.
  talk.setAttribute("aria-busy", "true");
  const words = add("assistant", "");
  words.classList.add("begun");
  try {
    const answer = await fetch("/talk/answer", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(turns.slice(-5)),
    });
    if (!answer.ok) throw new Error(answer.statusText);
    for await (const [kind, said] of events(answer)) {
      if (kind === "done") count.textContent = `${said.tokens} tokens by ${said.model}`;
      else if (kind === "failed") throw new Error(said.text);
      else words.textContent += said.text;
    }
    turns.push({ who: "assistant", text: words.textContent });
  } catch (error) {
    words.textContent += (words.textContent ? " … " : "") + (error.message || "The shop does not answer.");
    turns.pop();
  } finally {
    words.classList.remove("begun");
    talk.removeAttribute("aria-busy");
    busy = false;
    words.scrollIntoView({ block: "nearest" });
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (busy || !text) return;
  question.value = "";
  ask(text);
});
