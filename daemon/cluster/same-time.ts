import { XosanError } from '../../core/errors.ts'

/** A certificate's end is a time of day, and a host refuses one whose length it finds odd. */
const APART_MS_MAX = 24 * 3_600_000

/** @param timeOfDay of that host, milliseconds since 1970 @throws XosanError CLOCKS_DIFFER */
export function requireSameTime(host: string, timeOfDay: number): void {
  const apartMs = Math.abs(timeOfDay - Date.now())
  if (apartMs > APART_MS_MAX) {
    throw new XosanError('CLOCKS_DIFFER', { host, hours: Math.round(apartMs / 3_600_000) })
  }
}
