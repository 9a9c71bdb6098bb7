import { z } from 'zod'
import { reasonOf, XosanError } from '../core/errors.ts'
import { issuesOf } from '../rpc/wire.ts'
import { flag, type SmapiCall } from './call.ts'

/** Name of the one parameter that is a map; on a command line it is repeated options, not a position. */
const CONFIGURATION = 'configuration'

/**
 * Reads the arguments of a call from what its entry script was given. There are two conventions:
 *
 * - `--json`: one JSON object of named parameters on stdin, as xapi-storage-script calls;
 * - a debug string and then the parameters by position, maps as repeated `--configuration KEY VALUE` and flags also
 *   as `--<name>`, as static-vdis and administrators call.
 *
 * Named parameters that the call does not have are ignored: newer versions of xapi send more of them.
 *
 * @throws XosanError INVALID_ARGUMENT
 */
export function parseArguments(
  name: string,
  parameters: SmapiCall['parameters'],
  argv: readonly string[],
  stdin: string
): Readonly<Record<string, unknown>> {
  const given =
    argv[0] === '--json' || argv[0] === '-j' ? named(name, stdin) : positional(name, parameters, argv)
  const parsed = z.object(parameters).safeParse(given)
  if (!parsed.success) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `A parameter of ${name}`,
      reason: issuesOf(parsed.error),
    })
  }
  return parsed.data
}

function named(name: string, stdin: string): unknown {
  try {
    return JSON.parse(stdin)
  } catch (error) {
    throw new XosanError('INVALID_ARGUMENT', { what: `The input of ${name}`, reason: reasonOf(error) })
  }
}

function positional(
  name: string,
  parameters: SmapiCall['parameters'],
  argv: readonly string[]
): Record<string, unknown> {
  const configuration: [string, string][] = []
  const flags = new Set<string>()
  const values: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i]!
    if (argument === `--${CONFIGURATION}`) {
      const [key, value] = argv.slice(i + 1, i + 3)
      if (key === undefined || value === undefined) {
        throw new XosanError('INVALID_ARGUMENT', {
          what: `The command line of ${name}`,
          reason: `--${CONFIGURATION} needs a key and a value`,
        })
      }
      configuration.push([key, value])
      i += 2
    } else if (argument.startsWith('--') && parameters[argument.slice(2)] === flag) {
      flags.add(argument.slice(2))
    } else {
      values.push(argument)
    }
  }
  // The first one tells xapi's log lines apart; nothing here depends on it.
  values.shift()
  const given: Record<string, unknown> = {}
  for (const parameter of Object.keys(parameters)) {
    if (parameter === CONFIGURATION) given[parameter] = Object.fromEntries(configuration)
    else if (flags.has(parameter)) given[parameter] = 'true'
    else if (values.length > 0) given[parameter] = values.shift()
  }
  if (values.length > 0) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `The command line of ${name}`,
      reason: `it takes a debug string and then ${Object.keys(parameters).join(', ') || 'nothing'}; left over: ${values.join(' ')}`,
    })
  }
  return given
}
