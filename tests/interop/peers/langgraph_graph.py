"""A graph for LangGraph's own server: echoes, and asks where the message begins with `ask`."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


def clerk(state):
    said = state["messages"][-1].text
    if said.startswith("ask "):
        said = interrupt(f"Which {said.removeprefix('ask ')}?")
    return {"messages": [AIMessage(f"echo {said}")]}


builder = StateGraph(MessagesState)
builder.add_node("clerk", clerk)
builder.add_edge(START, "clerk")
graph = builder.compile()
