/** Quantile of numbers in any order, between two of them linearly; NaN of none. @param fraction 0 to 1 */
export function quantile(numbers: readonly number[], fraction: number): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  if (sorted.length === 0) return Number.NaN
  const at = (sorted.length - 1) * fraction
  const below = sorted[Math.floor(at)]!
  const above = sorted[Math.ceil(at)]!
  return below + (above - below) * (at - Math.floor(at))
}

export const median = (numbers: readonly number[]): number => quantile(numbers, 0.5)

/** A median with the middle half of what it is the median of. */
export interface Spread {
  readonly median: number
  readonly lower: number
  readonly upper: number
  readonly count: number
}

export const spreadOf = (numbers: readonly number[]): Spread => ({
  median: median(numbers),
  lower: quantile(numbers, 0.25),
  upper: quantile(numbers, 0.75),
  count: numbers.length,
})

/**
 * Ratios of what was measured in the same repetition: whatever the machine did meanwhile, it did to both.
 * @param ours by repetition; one that is missing on a side is left out
 */
export function pairwiseRatios(
  ours: readonly (number | undefined)[],
  theirs: readonly (number | undefined)[]
): number[] {
  return ours.flatMap((own, index) => {
    const other = theirs[index]
    return own === undefined || other === undefined || other === 0 ? [] : [own / other]
  })
}
