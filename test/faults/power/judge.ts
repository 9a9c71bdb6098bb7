/** Whether what is found after a power cut is what was promised. */
import { type Shape, standingAt } from './items.ts'

export interface Chain {
  readonly shape: Shape
  /** False for what is not synced because it ends with the boot: older is right, torn is not. */
  readonly durable: boolean
}

/** How far a chain had come when the power was cut. */
export interface Standing {
  readonly acknowledged: number
  /** The same, or one more: what was in flight. */
  readonly sent: number
}

export type Verdict =
  | { readonly kind: 'kept'; readonly at: number }
  | { readonly kind: 'lost'; readonly reason: string }
  | { readonly kind: 'damaged'; readonly reason: string }

/** @param found as `standingAt` words it */
export function judge({ shape, durable }: Chain, { acknowledged, sent }: Standing, found: string): Verdict {
  for (let n = sent; n >= 0; n--) {
    if (standingAt(shape, n) !== found) continue
    if (n >= acknowledged || !durable) return { kind: 'kept', at: n }
    return { kind: 'lost', reason: `item ${acknowledged} was acknowledged, but it stands at ${n}` }
  }
  return {
    kind: 'damaged',
    reason: `it stands as it never did: ${found}; acknowledged was ${acknowledged}, sent was ${sent}`,
  }
}
