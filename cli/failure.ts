import { ERRORS, XosanError, reasonOf } from '../core/errors.ts'

/** Exit codes of the `xosan` command; `docs/operating/commands.md` lists them for operators. */
export const EXIT = {
  ok: 0,
  /** The command was understood and could not be carried out. */
  failed: 1,
  /** The command line, or a name on it, is wrong. */
  usage: 2,
  /** xosand does not answer. */
  unreachable: 3,
  /** Nothing is wrong for good: the same command may succeed later. */
  tryAgain: 4,
} as const

export function exitCodeOf(error: unknown): number {
  if (!(error instanceof XosanError)) return EXIT.failed
  if (error.code === 'INVALID_ARGUMENT') return EXIT.usage
  if (error.code === 'DAEMON_UNREACHABLE') return EXIT.unreachable
  return error.retriable ? EXIT.tryAgain : EXIT.failed
}

/** What went wrong and what to do about it, for an operator. */
export function describeFailure(error: unknown): string[] {
  if (!(error instanceof XosanError)) {
    return [`xosan: ${reasonOf(error)}`]
  }
  return [`xosan: ${error.message}`, `  What next: ${ERRORS[error.code].next} (${error.code})`]
}

/** The same for a program: the object that `--json` prints on standard output. */
export function failureObject(error: unknown): Readonly<Record<string, unknown>> {
  if (!(error instanceof XosanError)) {
    return { error: { code: 'INTERNAL', message: reasonOf(error), retriable: false } }
  }
  const { code, message, parameters, retriable } = error
  return { error: { code, message, parameters, retriable, next: ERRORS[code].next } }
}
