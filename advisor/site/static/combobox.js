// An input with a list of what it may mean, for the mouse and for the keyboard alike.
// Pattern: https://www.w3.org/WAI/ARIA/apg/patterns/combobox/, list autocomplete with manual selection.

export class Combobox {
  #active = -1;
  #offers = [];

  /** `search`: letters -> a promise of [{name, beside}]; `taken`: called when one is chosen. */
  constructor(input, search, taken) {
    this.input = input;
    this.list = document.getElementById(`${input.id}-list`);
    this.search = search;
    this.taken = taken;
    input.addEventListener("input", () => this.#look());
    input.addEventListener("keydown", (event) => this.#pressed(event));
    input.addEventListener("blur", () => this.close());
    this.list.addEventListener("pointerdown", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) {
        event.preventDefault(); // or the input loses its focus first
        this.#take([...this.list.children].indexOf(option));
      }
    });
  }

  async #look() {
    const typed = this.input.value;
    const offers = typed.trim() ? await this.search(typed) : [];
    if (offers === undefined || typed !== this.input.value || document.activeElement !== this.input) return;
    const exact = offers.some(({ name }) => name.toLowerCase() === typed.trim().toLowerCase());
    this.#show(exact ? [] : offers);
  }

  #show(offers) {
    this.#offers = offers;
    this.list.replaceChildren(
      ...offers.map(({ name, beside }, place) => {
        const option = document.createElement("li");
        option.id = `${this.input.id}-option-${place}`;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", "false");
        const small = document.createElement("small");
        small.textContent = beside;
        option.append(name, " ", small);
        return option;
      }),
    );
    this.#mark(-1);
    this.list.hidden = !offers.length;
    this.input.setAttribute("aria-expanded", String(offers.length > 0));
  }

  #mark(place) {
    this.#active = place;
    [...this.list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === place)));
    const option = this.list.children[place];
    if (option) {
      this.input.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  #pressed(event) {
    const open = !this.list.hidden;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !open) this.#look();
    else if (step) this.#mark((this.#active + step + this.#offers.length + (this.#active < 0 && step < 0)) % this.#offers.length);
    else if (event.key === "Enter" && open && this.#active >= 0) this.#take(this.#active);
    else if (event.key === "Escape" && open) this.close();
    else return;
    event.preventDefault();
  }

  #take(place) {
    this.input.value = this.#offers[place].name;
    this.close();
    this.taken();
  }

  close() {
    this.#show([]);
  }
}
