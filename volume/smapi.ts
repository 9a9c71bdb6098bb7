/** The table of SMAPIv3's calls, and how one is answered. `docs/internals/smapiv3.md` tells the whole way. */
import { XosanError } from '../core/errors.ts'
import { type ControlParams, type ControlResult } from '../rpc/control-api.ts'
import { parseArguments } from './arguments.ts'
import { type SmapiCall } from './call.ts'
import { type VolumeContext } from './context.ts'
import { datapathCalls } from './datapath/datapath-calls.ts'
import { Deadline } from './deadline.ts'
import { datapathPluginCalls, volumePluginCalls } from './plugin/plugin-calls.ts'
import { smapiError } from './smapi-errors.ts'
import { srCalls } from './sr/sr-calls.ts'
import { volumeCalls } from './volumes/volume-calls.ts'

/** Entry script's name -> call, for each of the two plugins. */
export const smapiCalls: Readonly<Record<'volume' | 'datapath', Readonly<Record<string, SmapiCall>>>> = {
  volume: { ...volumePluginCalls, ...srCalls, ...volumeCalls },
  datapath: { ...datapathPluginCalls, ...datapathCalls },
}

/**
 * Answers one call of an entry script.
 *
 * @returns exit code and what to print; never rejects
 */
export async function answerSmapiCall(
  context: VolumeContext,
  { plugin, name, arguments: argv, stdin }: ControlParams<'smapi.call'>
): Promise<ControlResult<'smapi.call'>> {
  try {
    const call = Object.hasOwn(smapiCalls[plugin], name) ? smapiCalls[plugin][name] : undefined
    if (call === undefined) {
      throw new XosanError('UNSUPPORTED', { what: name, reason: 'this version does not have it' })
    }
    const args = parseArguments(name, call.parameters, argv, stdin)
    const deadline = new Deadline(context.clock, name, call.deadlineMs)
    // The table holds calls with different parameters; each was checked against its own just above.
    return [0, (await deadline.race(call.answer(context, args as never, deadline))) as never]
  } catch (error) {
    if (!(error instanceof XosanError)) {
      context.warn('a call went wrong', {
        name,
        reason: error instanceof Error ? String(error.stack) : String(error),
      })
    }
    return [1, smapiError(error) as never]
  }
}
