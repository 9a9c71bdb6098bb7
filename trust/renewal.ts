const DAY_MS = 86_400_000
/** Renewal is tried from here on, daily: a third of a certificate's year, so that an SR may be switched off for a season. */
const RENEW_DAYS = 120
/** Only a renewal that has failed for two months gets here. */
const WARN_DAYS = 60

/** What is to be done about a certificate's end. */
export type RenewalState =
  | 'fresh'
  /** To be renewed; nobody need know. */
  | 'due'
  /** To be renewed, and somebody has to look why that has not happened. */
  | 'ending'
  /** Worthless: other hosts refuse it. */
  | 'expired'

/** @param notAfter the end of a certificate, of a host or an authority @param now the time of day */
export function renewalOf(
  notAfter: Date,
  now: Date
): { readonly state: RenewalState; readonly daysLeft: number } {
  const daysLeft = Math.floor((notAfter.getTime() - now.getTime()) / DAY_MS)
  if (daysLeft < 0) return { state: 'expired', daysLeft }
  if (daysLeft < WARN_DAYS) return { state: 'ending', daysLeft }
  return { state: daysLeft < RENEW_DAYS ? 'due' : 'fresh', daysLeft }
}
