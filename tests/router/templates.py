"""Chat templates as models have them, with the constructs that template engines differ in."""

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA_3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message is its own block. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Tools: " + tools|tojson(indent=4) }}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'}}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("Conversation roles must alternate user/assistant/...") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""

# Blocks on lines of their own, for trim_blocks and lstrip_blocks; macros; methods of strings.
QWEN_LIKE = """{% macro turn(message, last=false) %}
  {% set parts = message.content.split('</think>') %}
<|{{ message.role.upper() }}|>
{{ parts[-1].strip() if message.role == 'assistant' else message.content }}
  {% if last and not message.content.endswith('?') %}
(no question: {{ message.content[:3] ~ loop_count }}, {{ true }}, {{ none }}, {{ 1.0 }})
  {% endif %}
{% endmacro %}
{% set ns = namespace(count=0, users=[]) %}
{% for message in messages %}
    {% if message['role'] == 'user' %}
        {% set ns.count = ns.count + 1 %}
        {% set ns.users = ns.users + [message.content|length] %}
    {% endif %}
    {% if message.role == 'skip' %}{% continue %}{% endif %}
{{ loop.index0 }}/{{ loop.length }}:{{ turn(message, last=loop.last) }}
{% endfor %}
{% for key, value in messages[0].items()|list if key != 'content' %}
[{{ key }}={{ value|tojson }}]
{% endfor %}
{{ messages[::-1][0].content|tojson }} {{ ns.users|join(',') }} {{ ns.count }}
{% for message in messages[1:] if message.role is string and message.get('name') is none %}
{{ '%02d' % 3 if false else message.content.lstrip('\\n').replace('a', 'b')|capitalize }}
{% else %}
nothing
{% endfor %}

"""

ALL = {"chatml": CHATML, "llama-3": LLAMA_3, "mistral": MISTRAL, "qwen-like": QWEN_LIKE}
