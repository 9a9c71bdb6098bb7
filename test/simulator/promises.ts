/** The promises of the design that a problem breaks: it begins with them. */
export const promisesOf = (problem: string): string[] =>
  /^P\d+(?:\/P\d+)*/.exec(problem)?.[0].split('/') ?? []

/** Somebody looks for a problem that breaks one of some promises; nothing that comes after it matters. */
export class Search {
  /** Resolves when there is one. */
  readonly over: Promise<void>
  readonly #wanted: ReadonlySet<string>
  #found!: () => void

  constructor(wanted: readonly string[] = []) {
    this.#wanted = new Set(wanted)
    this.over = new Promise(resolve => (this.#found = resolve))
  }

  saw(problem: string): void {
    if (promisesOf(problem).some(promise => this.#wanted.has(promise))) this.#found()
  }
}
