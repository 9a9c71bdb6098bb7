/** Lines between the runner and the program in the guest, each a JSON value. */
import { z } from 'zod'
import { CYCLE } from './items.ts'

/** The runner's: write an item. Sent only when the lane has told how it stands. */
export const orderSchema = z.strictObject({
  lane: z.string(),
  chain: z.string(),
  item: z.number().int().positive(),
})
export type Order = z.output<typeof orderSchema>

/** The guest's. */
export const noticeSchema = z.discriminatedUnion('kind', [
  /** The program has started; the lanes are being opened. */
  z.strictObject({ kind: z.literal('started') }),
  /** A lane is open. @param standing of each chain, as `standingAt` words it */
  z.strictObject({
    kind: z.literal('open'),
    lane: z.string(),
    standing: z.record(z.string(), z.string()),
  }),
  /** An item was acknowledged by whoever has written it. */
  z.strictObject({
    kind: z.literal('done'),
    lane: z.string(),
    chain: z.string(),
    item: z.number().int().positive(),
  }),
  /** Nothing more is done in this lane: it does not open, or could not write. */
  z.strictObject({
    kind: z.literal('failed'),
    lane: z.string(),
    at: z.enum(['opening', 'writing']),
    reason: z.string(),
  }),
])
export type Notice = z.output<typeof noticeSchema>

/** What the machine brings along for its lanes: as if the host had been enrolled before. */
export const seedSchema = z.strictObject({
  sr: z.string(),
  host: z.string(),
  authorityPem: z.string(),
  /** Of that authority; with nothing on it. */
  revocationListPem: z.string(),
  /** Certificates of the host, all good. */
  certificates: z.array(z.strictObject({ keyPem: z.string(), certificatePem: z.string() })).length(CYCLE),
})
export type Seed = z.output<typeof seedSchema>

/** Takes text as it comes and hands on whole lines. */
export class Lines {
  #rest = ''

  take(text: string): string[] {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop()!
    return lines.filter(line => line !== '')
  }
}
