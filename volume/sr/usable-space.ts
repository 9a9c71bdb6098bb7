/**
 * How many bytes fit when each is kept on several hosts.
 *
 * A host holds at most one replica of each byte. So, whichever k hosts are left out, the others must have room for the
 * `copies - k` replicas that those k cannot hold; leaving out the k largest is the hardest case, and U bytes fit when
 * every k allows them.
 *
 * @param spaces of the hosts, in bytes
 * @returns whole bytes; 0 when there are fewer hosts than copies
 */
export function usableBytes(spaces: readonly number[], copies: number): number {
  if (spaces.length < copies) return 0
  const descending = [...spaces].sort((a, b) => b - a)
  let usable = Number.POSITIVE_INFINITY
  for (let leftOut = 0; leftOut < copies; leftOut++) {
    const others = descending.slice(leftOut).reduce((sum, space) => sum + space, 0)
    usable = Math.min(usable, Math.floor(others / (copies - leftOut)))
  }
  return usable
}
