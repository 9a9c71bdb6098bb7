import { type Json } from '../../rpc/wire.ts'
import { uriOf } from '../call.ts'
import { type StoredVolume, type VolumeContext } from '../context.ts'

/** A volume as SMAPIv3 describes it. Fields that do not apply are absent, never null. */
export function smapiVolume(context: Pick<VolumeContext, 'usage'>, volume: StoredVolume): Json {
  const { sr, key, state, info } = volume
  return {
    key,
    uuid: key,
    name: info.name,
    description: info.description,
    read_write: true,
    sharable: state.sharable,
    virtual_size: state.size,
    physical_utilisation: context.usage.physicalBytes(volume),
    uri: [uriOf(sr, key)],
    keys: info.keys,
  }
}
