-- What a call brings, and the records beside the streams of work: jobs, bodies, a run's jobs, replies.
-- Of a call: each brings the settings, as one server serves clients whose settings differ.
-- The keys and the fields of a job's hash are described in redis.py.

local GROUP = 'teachers'
local lease_ms, max_deliveries, ttl_ms, max_tokens, max_bytes, turn_ms
local call  -- `redis.call`, which is not there while the library is loaded

local function queue_key(queue, part) return 'tutelage:{' .. queue .. '}:' .. part end
local function job_key(id) return 'tutelage:job:' .. id end
local function run_key(run) return 'tutelage:run:' .. run end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function load(id)
  local flat, job = call('HGETALL', job_key(id)), {id = id, asked = {}}
  for i = 1, #flat, 2 do
    local reply_to = string.match(flat[i], '^to:(.*)$')
    if reply_to then job.asked[reply_to] = flat[i + 1] else job[flat[i]] = flat[i + 1] end
  end
  return job
end

local function blob_key(reference)
  local sha256 = string.match(reference or '', '^blob:(%x+)$')
  return sha256 and 'tutelage:blob:' .. sha256
end

local function forget_blob(reference)
  local key = blob_key(reference)
  if key then call('DEL', key) end
end

local function touch(id, reference)
  call('PEXPIRE', job_key(id), ttl_ms)
  local key = blob_key(reference)
  if key then call('PEXPIRE', key, ttl_ms) end
end

local function announce(id, reply_to)
  local key = 'tutelage:replies:' .. reply_to
  call('XADD', key, '*', 'job', id)
  call('PEXPIRE', key, ttl_ms)
end

local function note_run(run, id)
  call('SADD', run_key(run), id)
  call('PEXPIRE', run_key(run), ttl_ms)
end
