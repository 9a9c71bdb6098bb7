import { readFileSync } from 'node:fs'
import { z } from 'zod'

/** One run of a program, as it is noted in a file for whoever supervises it next; see `ProcessHandle`. */
export const runSchema = z.strictObject({
  pid: z.number().int().positive(),
  startTicks: z.number().int().nonnegative(),
  /** How often the supervisor had to start this program again. */
  restarts: z.number().int().nonnegative(),
})
export type Run = z.infer<typeof runSchema>

/** Changes with every boot of the machine: a run that was noted in another boot is over, whatever has its pid now. */
export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
