import { AssertionError } from 'node:assert'

/** Whether something was thrown that no code of the table stands for: the product itself went wrong. */
export const isMistake = (error: unknown): boolean =>
  error instanceof TypeError || error instanceof RangeError || error instanceof AssertionError
