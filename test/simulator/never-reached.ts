/** A passage that no universe reaches, and why that is as it should be. */
export interface NeverReached {
  readonly file: string
  /** The line on which it begins, without the blanks around it. */
  readonly text: string
  readonly reason: string
}

/**
 * The report of `npm run sim` lists every passage that no universe reached, but for these; one that is reached after all,
 * or is not there any more, is reported as outdated. At most ten.
 */
export const NEVER_REACHED: readonly NeverReached[] = []
