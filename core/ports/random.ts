/** Randomness, replaced by a seeded source in the simulator. */
export interface Random {
  /** A random UUID (version 4), in lower case. */
  uuid(): string
  /** A number from 0 (included) to 1 (excluded). */
  fraction(): number
}
