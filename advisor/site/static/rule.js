// What a rule says, unfolded below the sentence that names it.

/** Shows the rule of a button, or takes it away again. `ask`: a question -> a promise of its answer. */
export async function toggleRule(button, ask) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) return void button.parentElement.querySelector(".rule")?.remove();
  const found = await ask({ kind: "explain", code: button.dataset.rule });
  if (!found?.ok) return void button.setAttribute("aria-expanded", "false");
  const place = document.createElement("div");
  place.className = "rule";
  place.setAttribute("role", "status");
  const title = document.createElement("strong");
  title.textContent = found.title;
  const body = document.createElement("div");
  body.innerHTML = found.html;
  place.append(title, body);
  button.parentElement.append(place);
}
