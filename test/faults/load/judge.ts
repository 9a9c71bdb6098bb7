import { type LoadReport } from './load-protocol.ts'

/** What went wrong by a client's own account, as sentences. A lost connection is for the caller to judge. */
export function faultsOf(report: LoadReport): string[] {
  const faults = report.errors.map(error => `error at the client: ${error}`)
  for (const { sector, found, allowed } of report.mismatches) {
    faults.push(`sector ${sector} holds write ${found}, allowed are ${allowed.join(', ')}`)
  }
  if (report.mismatchCount > report.mismatches.length) {
    faults.push(`${report.mismatchCount} sectors in all do not match`)
  }
  return faults
}
