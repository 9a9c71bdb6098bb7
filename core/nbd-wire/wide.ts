const HIGH = 2 ** 32

/**
 * Reads an unsigned number of 64 bits as a number. Above 2^53 it is rounded, but stays above 2^53: callers compare
 * it with sizes, which never reach there. BigInt would cost an allocation for each request.
 */
export const readWide = (bytes: Buffer, at: number): number =>
  bytes.readUInt32BE(at) * HIGH + bytes.readUInt32BE(at + 4)

/** Writes a whole number from 0 to 2^53 - 1 as 64 bits. */
export function writeWide(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / HIGH), at)
  bytes.writeUInt32BE(value % HIGH, at + 4)
}
